//! GTN.
