//! Two regions of three nodes each, with what lies between them: a link that takes its time and can be cut; and a third that
//! serves by itself. Used to drill what `deploy/runbooks/add-region.md`, `dr-promotion.md` and `dr-failback.md` say in words.
//! Read next: [`drill`] for the steps, [`lag`] for what it costs, [`link`] for the road between, [`region`] for what is asked of each.

pub mod drill;
pub mod far;
pub mod lag;
pub mod link;
pub mod orders;
pub mod region;
