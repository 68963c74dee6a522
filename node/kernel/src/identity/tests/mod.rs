//! What identity does, through the whole pipeline.

mod advisories;
mod agreement;
mod authority;
mod groups;
mod paths;
mod races;

use arca_engine_api::{Map, Operation};
use serde_json::{Value, json};

use crate::tokens::rig::Rig;
use crate::{Answer, KernelError};

/// A cluster with two auth mounts where anybody may log in as anybody.
struct World {
    rig: Rig,
    people: String,
    robots: String,
}

impl World {
    async fn new() -> Self {
        let rig = Rig::active().await;
        let mut accessors = Vec::new();
        for path in ["people", "robots"] {
            rig.post("root", &format!("sys/auth/{path}"), json!({"type": "notes"})).await.unwrap();
            let router = rig.kernel.mounts.router(&rig.kernel.store).unwrap();
            accessors.push(router.at(&format!("auth/{path}/")).unwrap().record.accessor.clone());
        }
        let robots = accessors.pop().unwrap();
        Self { rig, people: accessors.pop().unwrap(), robots }
    }

    async fn policy(&self, name: &str, text: &str) {
        let path = format!("sys/policies/acl/{name}");
        self.rig.post("root", &path, json!({"policy": text})).await.unwrap();
    }

    /// Writes; answers the data.
    async fn write(&self, path: &str, body: Value) -> Map {
        let answer = self.rig.post("root", &format!("identity/{path}"), body).await;
        answer.unwrap_or_else(|err| panic!("{path}: {err}")).data.unwrap_or_default()
    }

    /// Writes; answers the id.
    async fn make(&self, path: &str, body: Value) -> String {
        self.write(path, body).await["id"].as_str().unwrap().to_owned()
    }

    /// Why a write is refused.
    async fn refused(&self, path: &str, body: Value) -> String {
        match self.rig.post("root", &format!("identity/{path}"), body.clone()).await {
            Ok(answer) => panic!("{path} takes {body}: {:?}", answer.data),
            Err(err) => {
                assert_eq!(err.fault(), arca_engine_api::Fault::Invalid, "{path} {body}: {err}");
                err.to_string()
            }
        }
    }

    async fn read(&self, path: &str) -> Option<Value> {
        match self.rig.get("root", &format!("identity/{path}")).await {
            Ok(answer) => Some(Value::Object(answer.data.unwrap())),
            Err(KernelError::NotFound(_)) => None,
            Err(err) => panic!("{path}: {err}"),
        }
    }

    async fn list(&self, path: &str) -> Value {
        let answer = self.rig.list("root", &format!("identity/{path}/")).await.unwrap();
        Value::Object(answer.data.unwrap_or_default())
    }

    async fn delete(&self, path: &str) {
        self.rig
            .ask("root", Operation::Delete, &format!("identity/{path}"), json!(null), None)
            .await
            .unwrap();
    }

    async fn try_login(&self, mount: &str, name: &str, body: Value) -> Result<Answer, KernelError> {
        self.rig.post("", &format!("auth/{mount}/login/{name}"), body).await
    }

    /// Logs in; answers token and entity.
    async fn login(&self, mount: &str, name: &str, body: Value) -> (String, String) {
        let auth = self.try_login(mount, name, body).await.unwrap().auth.unwrap();
        (auth.client_token.to_string(), auth.entity_id)
    }

    async fn lookup(&self, token: &str) -> Result<Value, KernelError> {
        let answer = self.rig.get(token, "auth/token/lookup-self").await?;
        Ok(Value::Object(answer.data.unwrap()))
    }

    /// Policies by identity that a token has now.
    async fn identity_policies(&self, token: &str) -> Value {
        self.lookup(token).await.unwrap()["identity_policies"].take()
    }
}

/// Without what changes from run to run.
fn settled(mut data: Value) -> Value {
    let Some(map) = data.as_object_mut() else { return data };
    for name in ["creation_time", "last_update_time"] {
        if map.contains_key(name) {
            assert!(map[name].as_str().unwrap().ends_with('Z'));
            map.remove(name);
        }
    }
    for value in map.values_mut() {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| *item = settled(item.take())),
            other => *other = settled(other.take()),
        }
    }
    data
}
