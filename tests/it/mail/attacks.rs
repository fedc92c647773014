//! Attacks with bounded means: what each costs, and the harm that is left for others.
//!
//! Every test prints its means (requests, bytes, accounts) and the measured harm, so that "Limits"
//! in the README can say what remains possible at which price.

mod denied;
mod hostile_mediator;
mod own_mail;
pub(crate) mod poison;
mod reader_disk;
mod relay_cannon;
mod relay_loop;
mod relay_slow;
mod sessions;
mod shares;
mod squatters;
mod unread;

use crate::directory::print_harm;
