//! A tape is a program.
