//! Enrolment: the session at the PDS, the record and the registrations at mediators.

pub mod account;
pub mod elsewhere;
pub mod enroll;
