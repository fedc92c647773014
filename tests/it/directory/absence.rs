//! What a missing account, a lost word and an ended account lead to.
