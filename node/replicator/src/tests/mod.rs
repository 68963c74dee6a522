//! Roles from order to order: two clusters of one member each, over model disks and a model of what lies between them.
//! Read next: [`region`] for what they are made of.

mod copies;
mod keys;
mod region;
mod switches;
