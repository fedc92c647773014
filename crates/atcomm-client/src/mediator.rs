//! The client of one mediator: requests, live mode and the forwards that lead to it.

pub mod client;
pub mod live;
pub mod route;
