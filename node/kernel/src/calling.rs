//! An engine of a mount, with all it may touch while it is called: how [`Ctx`] is made, in one place.

use std::time::Duration;

use arca_danger::Bug;
use arca_engine_api::{Ctx, Engine, EngineError, Map, MountView, Passwords};
use zeroize::Zeroizing;

use crate::KernelError;
use crate::kernel::Kernel;
use crate::password_policy;
use crate::router::Mount;
use crate::tx::{EngineStorage, Mode, Tx};

/// Longest time an engine may take to act on the outside world.
pub(crate) const CARRY_OUT_PATIENCE: Duration = Duration::from_secs(60);

/// What came of acting on the outside world.
pub(crate) struct Acted {
    pub(crate) outcome: Result<Map, EngineError>,
    /// Whether acting has ended. What did not answer in time may still be under way.
    pub(crate) has_ended: bool,
}

/// An engine that is about to be called.
pub(crate) struct Called<'a> {
    kernel: &'a Kernel,
    engine: &'a dyn Engine,
    mount: &'a MountView,
    storage: EngineStorage<'a>,
    passwords: PolicyPasswords<'a>,
}

impl<'a> Called<'a> {
    pub(crate) fn engine(&self) -> &'a dyn Engine {
        self.engine
    }

    pub(crate) fn ctx(&self) -> Ctx<'_> {
        Ctx {
            storage: &self.storage,
            mount: self.mount,
            clock: self.kernel.clock.as_ref(),
            entropy: self.kernel.entropy.as_ref(),
            http: self.kernel.outside.http.as_ref(),
            passwords: &self.passwords,
            workers: self.kernel.outside.workers.as_ref(),
            pod: self.kernel.outside.pod.as_ref(),
        }
    }
}

impl Kernel {
    /// The engine of a mount, which sees the state as `tx` does.
    pub(crate) fn call<'a>(&'a self, tx: &'a Tx, mount: &'a Mount) -> Result<Called<'a>, KernelError> {
        let engine = mount.engine()?.as_ref();
        let storage = EngineStorage::new(tx, mount.storage_prefix(), mount.class(), engine.local_prefixes());
        Ok(self.calling(tx, engine, &mount.view, storage, &mount.namespace.id))
    }

    /// An engine that is not mounted yet.
    pub(crate) fn calling<'a>(
        &'a self,
        tx: &'a Tx,
        engine: &'a dyn Engine,
        mount: &'a MountView,
        storage: EngineStorage<'a>,
        namespace_id: &'a str,
    ) -> Called<'a> {
        let passwords = PolicyPasswords { kernel: self, tx, namespace_id };
        Called { kernel: self, engine, mount, storage, passwords }
    }

    /// Has an engine act on the outside world; whatever has not ended in time counts as failed.
    pub(crate) async fn carry_out(&self, mount: &Mount, intent: &Map) -> Acted {
        let tx = self.store.begin(Mode::ReadOnly);
        let called = match self.call(&tx, mount) {
            Ok(called) => called,
            Err(err) => return Acted { outcome: Err(EngineError::Bug(err.to_string())), has_ended: true },
        };
        let ctx = called.ctx();
        let acting = called.engine().carry_out(&ctx, intent);
        match tokio::time::timeout(CARRY_OUT_PATIENCE, acting).await {
            Ok(outcome) => Acted { outcome, has_ended: true },
            Err(_) => {
                let text = "the system behind the engine did not answer in time".to_owned();
                let has_ended = arca_danger::is(Bug::GivenUpCountsAsEnded);
                Acted { outcome: Err(EngineError::Upstream(text)), has_ended }
            }
        }
    }
}

/// Passwords by the policies of a namespace.
struct PolicyPasswords<'a> {
    kernel: &'a Kernel,
    tx: &'a Tx,
    namespace_id: &'a str,
}

impl Passwords for PolicyPasswords<'_> {
    fn generate(&self, policy: &str) -> Result<Zeroizing<String>, EngineError> {
        let entropy = self.kernel.entropy.as_ref();
        password_policy::generate(self.tx, entropy, self.namespace_id, policy)
    }
}
