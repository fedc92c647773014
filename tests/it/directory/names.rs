//! Which name an account is shown under, and which account a name leads to.
