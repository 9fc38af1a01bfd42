//! Reads as much of Python's pickle format as CIFAR's files need: dictionaries of lists and of numpy's byte
//! arrays.

use crate::error::{Error, Result};
use serde_pickle::{DeOptions, HashableValue, Value};
use std::collections::BTreeMap;
use std::fmt::Display;

type Dictionary = BTreeMap<HashableValue, Value>;

/// The labels under the key `labels`, and the bytes of the array `data`, whose rows have `row` bytes.
pub(super) fn batch(pickle: &[u8], labels: &str, row: usize) -> Result<(Vec<i64>, Vec<u8>)> {
    let dictionary = dictionary(pickle)?;
    let labels = list(&dictionary, labels)?.iter().map(|label| match label {
        Value::I64(label) => Ok(*label),
        other => Err(wrong(format!("a label is {}", kind(other)))),
    });
    let labels = labels.collect::<Result<Vec<_>>>()?;
    let bytes = array(get(&dictionary, "data")?)
        .ok_or_else(|| wrong("`data` is no array of bytes in rows"))?;
    if labels.len().checked_mul(row) != Some(bytes.len()) {
        let (count, bytes) = (labels.len(), bytes.len());
        return Err(wrong(format!(
            "{count} labels for {bytes} bytes, {row} for each image"
        )));
    }
    Ok((labels, bytes.clone()))
}

/// The list of words under that key.
pub(super) fn names(pickle: &[u8], key: &str) -> Result<Vec<String>> {
    let dictionary = dictionary(pickle)?;
    let names = list(&dictionary, key)?.iter().map(|name| match name {
        Value::String(name) => Ok(name.clone()),
        Value::Bytes(name) => Ok(String::from_utf8_lossy(name).into_owned()),
        other => Err(wrong(format!("a name is {}", kind(other)))),
    });
    names.collect()
}

fn dictionary(pickle: &[u8]) -> Result<Dictionary> {
    // A numpy array is pickled as an object and its state. Keeping the state is enough: no Python code has to
    // run.
    let options = DeOptions::new()
        .replace_unresolved_globals()
        .keep_restore_state();
    match serde_pickle::value_from_slice(pickle, options) {
        Ok(Value::Dict(dictionary)) => Ok(dictionary),
        Ok(other) => Err(wrong(format!("{} and no dictionary", kind(&other)))),
        Err(error) => Err(wrong(error)),
    }
}

/// Python 2 wrote names as bytes, Python 3 writes them as text.
fn get<'a>(dictionary: &'a Dictionary, key: &str) -> Result<&'a Value> {
    let text = dictionary.get(&HashableValue::String(key.to_owned()));
    let value = text.or_else(|| dictionary.get(&HashableValue::Bytes(key.as_bytes().to_vec())));
    value.ok_or_else(|| wrong(format!("it has no `{key}`")))
}

fn list<'a>(dictionary: &'a Dictionary, key: &str) -> Result<&'a Vec<Value>> {
    match get(dictionary, key)? {
        Value::List(list) => Ok(list),
        other => Err(wrong(format!("`{key}` is {} and no list", kind(other)))),
    }
}

/// The bytes of numpy's state of an array: (version, shape, type, whether columns come first, bytes).
fn array(state: &Value) -> Option<&Vec<u8>> {
    let Value::Tuple(state) = state else {
        return None;
    };
    match &state[..] {
        [
            Value::I64(_),
            Value::Tuple(_),
            _,
            Value::Bool(false),
            Value::Bytes(bytes),
        ] => Some(bytes),
        _ => None,
    }
}

fn wrong(problem: impl Display) -> Error {
    Error::data(format!("no pickle of CIFAR: {problem}"))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::None => "nothing",
        Value::Bool(_) | Value::I64(_) | Value::Int(_) | Value::F64(_) => "a number",
        Value::Bytes(_) | Value::String(_) => "text",
        Value::List(_) | Value::Tuple(_) => "a list",
        Value::Set(_) | Value::FrozenSet(_) => "a set",
        Value::Dict(_) => "a dictionary",
    }
}
