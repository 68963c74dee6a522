//! Requests as they pass through the pipeline.

use arca_engine_api::Operation;

use crate::KernelError;
use crate::tokens::rig::Rig;

#[tokio::test]
async fn a_state_that_is_not_here_is_asked_of_the_active_node_if_the_caller_wants() {
    let mut rig = Rig::active().await;
    let header = rig.kernel.index_header().unwrap().unwrap().write(1_000_000).unwrap();
    let ask = async |rig: &Rig, forwards_when_behind: bool| {
        let mut incoming = rig.incoming("root", Operation::Read, "auth/token/lookup-self");
        incoming.required_index = vec![header.clone()];
        incoming.forwards_when_behind = forwards_when_behind;
        rig.kernel.handle(incoming).await.map(drop)
    };
    assert!(matches!(ask(&rig, true).await, Err(KernelError::NotYet)), "nobody to carry it to");
    rig.become_standby();
    assert!(matches!(ask(&rig, true).await, Err(KernelError::NeedsActive)));
    assert!(matches!(ask(&rig, false).await, Err(KernelError::NotYet)));
}
