//! Two clusters in one process, one following the other, on paused time: nothing sleeps for real.

mod day;
mod filters;
mod pace;
mod refusals;
mod region;
mod retention;
mod road;
mod shipping;
