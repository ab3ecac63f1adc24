//! The quality test: a list of conditions on scores, all of which must hold.
