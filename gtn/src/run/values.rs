//! Values of settings: what a flag takes, and how a choice is written.

use clap::ValueEnum;
use clap::builder::{RangedU64ValueParser, TypedValueParser};

/// How a choice is written on the command line.
pub fn name_of(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Larger sizes are mistakes, and their products overflow.
const LARGEST_SIZE: u64 = 1 << 20;

/// A size or a number of things.
pub fn count() -> impl TypedValueParser<Value = usize> {
    let range = RangedU64ValueParser::<u64>::new().range(1..=LARGEST_SIZE);
    range.map(|count| count as usize)
}

/// As [`count`], or 0, which stands for a default.
pub fn count_or_none() -> impl TypedValueParser<Value = usize> {
    let range = RangedU64ValueParser::<u64>::new().range(0..=LARGEST_SIZE);
    range.map(|count| count as usize)
}

/// A small number of learners, which train one after another.
pub(crate) fn few() -> impl TypedValueParser<Value = usize> {
    let range = RangedU64ValueParser::<u64>::new().range(1..=64);
    range.map(|count| count as usize)
}

/// A whole number that TOML can hold.
pub(crate) fn natural(least: u64) -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(least..=i64::MAX as u64)
}

/// A number that will be used as an f32, so it is its f32 value that has to fit.
fn number(text: &str, fits: fn(f32) -> bool, wanted: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    let number = number.filter(|&number| (number as f32).is_finite() && fits(number as f32));
    number.ok_or_else(|| format!("{wanted} is needed, in 32 bits"))
}

/// A number that is above 0 as an f32.
pub(crate) fn above_zero(text: &str) -> Result<f64, String> {
    number(text, is_positive, "a number above 0")
}

pub(crate) fn not_negative(text: &str) -> Result<f64, String> {
    number(text, |x| x >= 0.0, "0 or a number above it")
}

pub(crate) fn below_one(text: &str) -> Result<f64, String> {
    number(
        text,
        |x| (0.0..1.0).contains(&x),
        "a number from 0 to below 1",
    )
}

/// Strictly between 0 and 1, such as a momentum: its logarithm is learned, which 0 does not have, and from 1
/// on velocities grow without bound.
pub(crate) fn between(text: &str) -> Result<f64, String> {
    number(
        text,
        |x| is_positive(x) && x < 1.0,
        "a number above 0 and below 1",
    )
}

/// A normal f32, with all 24 bits of its significand: a subnormal rate is too small to move anything.
fn is_positive(x: f32) -> bool {
    x >= f32::MIN_POSITIVE
}

pub(crate) fn fraction(text: &str) -> Result<f64, String> {
    number(text, |x| (0.0..=1.0).contains(&x), "a number from 0 to 1")
}

pub(crate) fn two_counts(text: &str) -> Result<[usize; 2], String> {
    let count = |n: &str| {
        n.trim()
            .parse()
            .ok()
            .filter(|n| (1..=LARGEST_SIZE as usize).contains(n))
    };
    let counts: Option<Vec<usize>> = text.split(',').map(count).collect();
    counts
        .and_then(|counts| counts.try_into().ok())
        .ok_or_else(|| format!("two numbers from 1 to {LARGEST_SIZE} are needed, as in 64,32"))
}
