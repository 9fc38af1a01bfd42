//! Reads as much of Python's pickle format as CIFAR's files need: dictionaries of lists and of numpy's byte
//! arrays.

use crate::error::{Error, Result};
use serde_pickle::{DeOptions, HashableValue, Value};
use std::collections::{BTreeMap, HashMap};
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

/// Instructions of a pickle. The longest of CIFAR, a part of CIFAR-100, has some 450,000: three lists of 50,000. Written by
/// Python 3 in protocol 2, each file name takes eight.
const MOST_CODES: usize = 1 << 20;
/// Values that lie within each other. Reading them takes stack. CIFAR's lie four deep.
const MOST_DEPTH: usize = 100;
/// Bytes of a text or number that may be referred to again. Each reference becomes a copy.
const SHORT: usize = 300;

/// Refuses a pickle that would take far more stack, memory or time to read than it has bytes: a few bytes can make lists
/// within lists, or copies of copies.
fn check(pickle: &[u8]) -> Result<()> {
    let mut rest = pickle;
    // For every name of a value, whether it is short. The last value can be named if it was just made.
    let (mut named, mut made) = (HashMap::new(), None);
    let mut depths = Depths::default();
    for _ in 0..MOST_CODES {
        let Some((&code, after)) = rest.split_first() else {
            return Err(wrong("it is cut off"));
        };
        let unknown = || wrong(format!("there is no instruction {code:#04x} in those"));
        let length = argument(code, after).ok_or_else(unknown)?;
        let cut = || wrong("it is cut off");
        let (argument, after) = after.split_at_checked(length).ok_or_else(cut)?;
        rest = after;
        let deepest = depths.follow(code);
        let deepest = deepest.ok_or_else(|| wrong("it takes more values than it has"))?;
        if deepest > MOST_DEPTH {
            let reason = format!("more than {MOST_DEPTH} values lie within each other");
            return Err(wrong(reason));
        }
        match code {
            b'.' => return Ok(()),
            b'p' | b'q' | b'r' | 0x94 => {
                let short = made.take().ok_or_else(|| wrong("a value has two names"))?;
                let name = name(code, argument).unwrap_or(named.len() as u64);
                named.insert(name, short);
            }
            b'g' | b'h' | b'j' => {
                let short = name(code, argument).and_then(|name| named.get(&name));
                if short != Some(&true) {
                    return Err(wrong("it refers again to what is no short text"));
                }
                made = None;
            }
            // What a file begins with, and parts of it; the last value stays what it was.
            0x80 | 0x95 => {}
            // These change the value before, or give it back.
            b'a' | b'e' | b's' | b'u' | 0x90 | b'b' | 0x81 | b'(' => made = None,
            b')' | b']' | b'}' | b't' | b'l' | b'd' | 0x85..=0x87 | 0x8f | 0x91 | b'R' => {
                made = Some(false);
            }
            _ => made = Some(length <= SHORT),
        }
    }
    Err(wrong(format!("more than {MOST_CODES} instructions")))
}

/// How deep the values that a pickle's reader has on its stack go: 0 for a number, 1 for a list of numbers. `None` is a
/// mark.
#[derive(Default)]
struct Depths {
    stack: Vec<Option<usize>>,
    marks: usize,
}

impl Depths {
    /// Does what an instruction does. Gives the depth of the last value, or the number of marks if it is greater; `None` if
    /// the stack has too few values.
    fn follow(&mut self, code: u8) -> Option<usize> {
        match code {
            b'(' => {
                self.stack.push(None);
                self.marks += 1;
            }
            b'a' | b'b' => self.hold(1)?,
            b's' => self.hold(2)?,
            b'e' | b'u' | 0x90 => {
                let held = self.marked()?;
                self.deepen(held)?;
            }
            b't' | b'l' | b'd' | 0x91 => {
                let held = self.marked()?;
                self.stack.push(Some(held + 1));
            }
            0x85..=0x87 => self.wrap(usize::from(code) - 0x84)?,
            b'R' | 0x81 | 0x93 => self.wrap(2)?,
            b')' | b']' | b'}' | 0x8f => self.stack.push(Some(1)),
            b'p' | b'q' | b'r' | b'.' | 0x80 | 0x94 | 0x95 => {}
            _ => self.stack.push(Some(0)),
        }
        let last = self.stack.last().copied().flatten();
        Some(self.marks.max(last.unwrap_or(0)))
    }

    /// The last values, of which none is a mark, go into the one below.
    fn hold(&mut self, count: usize) -> Option<()> {
        let held = self.take(count)?;
        self.deepen(held)
    }

    /// The last values become one that holds them.
    fn wrap(&mut self, count: usize) -> Option<()> {
        let held = self.take(count)?;
        self.stack.push(Some(held + 1));
        Some(())
    }

    fn deepen(&mut self, held: usize) -> Option<()> {
        let below = self.stack.last_mut()?.as_mut()?;
        *below = (*below).max(held + 1);
        Some(())
    }

    /// Takes values from the stack: the depth of the deepest.
    fn take(&mut self, count: usize) -> Option<usize> {
        let first = self.stack.len().checked_sub(count)?;
        let mut taken = self.stack.drain(first..);
        taken.try_fold(0, |deepest, depth| Some(deepest.max(depth?)))
    }

    /// Takes the values after the last mark, and the mark.
    fn marked(&mut self) -> Option<usize> {
        let mark = self.stack.iter().rposition(Option::is_none)?;
        self.marks -= 1;
        let taken = self.stack.drain(mark..).flatten();
        Some(taken.max().unwrap_or(0))
    }
}

/// How many bytes belong to an instruction; `None` if CIFAR's files have none such. See `pickletools` of Python.
fn argument(code: u8, after: &[u8]) -> Option<usize> {
    let line = |bytes: &[u8]| {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        end.map_or(bytes.len(), |end| end + 1)
    };
    let counted = |width: usize| {
        let count = after.get(..width)?.iter().rev();
        let count = count.fold(0usize, |sum, &byte| sum << 8 | usize::from(byte));
        count.checked_add(width)
    };
    match code {
        b'(' | b')' | b'.' | b'N' | b'R' | b']' | b'}' | b'a'..=b'b' | b'd'..=b'e' | b'l' => {
            Some(0)
        }
        b's'..=b'u' | 0x81 | 0x85..=0x89 | 0x8f..=0x91 | 0x93 | 0x94 => Some(0),
        b'K' | b'h' | b'q' | 0x80 => Some(1),
        b'M' => Some(2),
        b'J' | b'j' | b'r' => Some(4),
        b'G' | 0x95 => Some(8),
        b'S' | b'V' => Some(line(after)),
        // To read a number takes time that grows with the square of its digits.
        b'F' | b'I' | b'L' | b'g' | b'p' => Some(line(after)).filter(|&length| length <= SHORT),
        b'c' => {
            let module = line(after);
            Some(module + line(&after[module..]))
        }
        b'C' | b'U' | 0x8a | 0x8c => counted(1),
        b'B' | b'T' | b'X' => counted(4),
        0x8d | 0x8e | 0x96 => counted(8),
        _ => None,
    }
}

/// The name of a value: digits in a line, or bytes of a number; `None` if the instruction has none.
fn name(code: u8, argument: &[u8]) -> Option<u64> {
    match code {
        b'p' | b'g' => std::str::from_utf8(argument).ok()?.trim_end().parse().ok(),
        0x94 => None,
        _ => {
            let bytes = argument.iter().rev();
            Some(bytes.fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
        }
    }
}

fn dictionary(pickle: &[u8]) -> Result<Dictionary> {
    check(pickle)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pickle: &[u8]) -> String {
        names(pickle, "names").unwrap_err().to_string()
    }

    #[test]
    fn what_would_fill_stack_or_memory_is_refused() {
        let ends = |begin: &[u8], with: &str| {
            let said = said(begin);
            assert!(said.ends_with(with), "{said}");
        };
        let nested = |depth| [b"]".repeat(depth), b"a".repeat(depth - 1), b".".to_vec()].concat();
        ends(&nested(100), "a list and no dictionary");
        let tuples = [&b"N"[..], &b"\x85".repeat(200_000), b"."].concat();
        for deep in [nested(101), nested(200_000), tuples, b"(".repeat(3_000_000)] {
            ends(&deep, "more than 100 values lie within each other");
        }
        ends(b"Na.", "it takes more values than it has");
        ends(b"Nt.", "it takes more values than it has");
        ends(&b"N".repeat(2_000_000), "more than 1048576 instructions");
        // Each list holds the one before twice.
        let laughs = b"]q\x00](h\x00h\x00eq\x01.";
        ends(laughs, "it refers again to what is no short text");
        ends(b"(lp0\ng0\n.", "it refers again to what is no short text");
        ends(b"Nq\x00q\x01.", "a value has two names");
        ends(b"Nq\x00\x80\x02q\x01.", "a value has two names");
        ends(b"T\xff\xff\xff\x7fabc", "it is cut off");
        ends(b"N222\x87.", "there is no instruction 0x32 in those");
        ends(
            &[b"L", &b"9".repeat(1000)[..], b"\n."].concat(),
            "no instruction 0x4c in those",
        );
    }

    /// Python 3 writes bytes in protocol 2 as calls, each with a tuple.
    #[test]
    fn many_values_may_hold_others() {
        let one = b"c_codecs\nencode\n(X\x01\x00\x00\x00xX\x06\x00\x00\x00latin1tR";
        let all = [b"}U\x05names](", &one.repeat(5000)[..], b"es."].concat();
        assert_eq!(names(&all, "names").unwrap(), vec!["x"; 5000]);
    }

    #[test]
    fn short_texts_may_be_referred_to_again() {
        let found = names(b"}(U\x05namesq\x00](h\x00h\x00U\x01xeu.", "names").unwrap();
        assert_eq!(found, ["names", "names", "x"]);
        // The tenth name is a byte that ends lines elsewhere.
        let found = names(b"}(U\x05names](U\x01xq\x0aU\x01yq\x0bh\x0aeu.", "names").unwrap();
        assert_eq!(found, ["x", "y", "x"]);
        let found = names(b"(dp0\nS'names'\np1\n(lp2\ng1\nas.", "names").unwrap();
        assert_eq!(found, ["names"]);
    }
}
