//! Ground truth: the accuracies of fully trained networks of a space, from a file.

use super::{Code, Space};
use crate::error::{Error, Result};
use crate::text;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// Names of a column of accuracies; the first that is there counts.
const ACCURACIES: [&str; 4] = ["c10_test200", "c10_val200", "mean_acc", "accuracy"];
/// Names of the column with the codes of networks.
const CODES: [&str; 3] = ["cell", "code", "network"];

/// Accuracies in percent.
#[derive(Clone, Debug)]
pub struct Truth {
    /// The name of the column that was read.
    pub column: String,
    accuracies: HashMap<Code, f64>,
    /// In the order of the file.
    codes: Vec<Code>,
}

impl Truth {
    /// Reads a CSV file with a row for each network, or a JSON object with an object for each: the tables of
    /// NAS-Bench-201 and NAS-Bench-Macro, and others of their form. Without a column it takes the first known
    /// name.
    ///
    /// # Errors
    /// If the file cannot be read, or names what is no network of the space.
    pub fn read(path: &Path, column: Option<&str>, space: &Space) -> Result<Self> {
        let text = text::read(path)?;
        let rows = if text.trim_start().starts_with('{') {
            of_json(&text, column)
        } else {
            of_csv(&text, column)
        };
        let (column, rows) = rows.map_err(|error| error.at(path.display()))?;
        let (mut accuracies, mut codes) = (HashMap::new(), Vec::new());
        for (name, accuracy) in rows {
            let code = space
                .code(&name)
                .map_err(|error| error.at(path.display()))?;
            match accuracies.insert(code.clone(), accuracy) {
                None => codes.push(code),
                Some(other) if other == accuracy => {}
                Some(other) => {
                    let message =
                        format!("network {code} has two accuracies, {other} and {accuracy}");
                    return Err(Error::usage(message).at(path.display()));
                }
            }
        }
        Ok(Self {
            column,
            accuracies,
            codes,
        })
    }

    /// The accuracy of a network, if it is known.
    pub fn of(&self, code: &Code) -> Option<f64> {
        self.accuracies.get(code).copied()
    }

    /// All networks, in the order of the file.
    pub fn codes(&self) -> &[Code] {
        &self.codes
    }

    /// A file from which [`Truth::read`] reads the same.
    pub fn to_csv(&self) -> String {
        let row = |code: &Code| format!("{code},{}\n", self.accuracies[code]);
        let rows: String = self.codes.iter().map(row).collect();
        format!("code,{}\n{rows}", self.column)
    }
}

type Rows = (String, Vec<(String, f64)>);

fn of_csv(text: &str, column: Option<&str>) -> Result<Rows> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header: Vec<String> = reader
        .headers()
        .map_err(Error::usage)?
        .iter()
        .map(str::to_owned)
        .collect();
    let find = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| header.iter().position(|known| known == name))
    };
    let missing = |what: &str, names: &[&str]| {
        Error::usage(format!("no column with the {what}: {}", names.join(", ")))
            .hint(format!("--column NAME; it has {}", header.join(", ")))
    };
    let code = find(&CODES).ok_or_else(|| missing("code", &CODES))?;
    let wanted = column.map_or(ACCURACIES.to_vec(), |column| vec![column]);
    let accuracy = find(&wanted).ok_or_else(|| missing("accuracy", &wanted))?;
    let row = |(number, row): (usize, csv::Result<csv::StringRecord>)| {
        let row = row.map_err(Error::usage)?;
        let found = row[accuracy]
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite());
        let found = found.ok_or_else(|| {
            Error::usage(format!(
                "line {}: `{}` is no accuracy",
                number + 2,
                &row[accuracy]
            ))
        })?;
        Ok((row[code].to_owned(), found))
    };
    let rows = reader
        .records()
        .enumerate()
        .map(row)
        .collect::<Result<_>>()?;
    Ok((header[accuracy].clone(), rows))
}

fn of_json(text: &str, column: Option<&str>) -> Result<Rows> {
    let networks: serde_json::Map<String, Value> =
        serde_json::from_str(text).map_err(Error::usage)?;
    let first = networks.values().next();
    let known = |name: &&&str| first.is_some_and(|network| network[**name].is_number());
    let column = column.or_else(|| ACCURACIES.iter().find(known).copied());
    let column = column.ok_or_else(|| {
        let names = ACCURACIES.join(", ");
        Error::usage(format!("no accuracy of its first network: {names}")).hint("--column NAME")
    })?;
    let row = |(code, network): (&String, &Value)| {
        let accuracy = network[column].as_f64();
        let accuracy = accuracy
            .ok_or_else(|| Error::usage(format!("network {code} has no number `{column}`")))?;
        Ok((code.clone(), accuracy))
    };
    let rows = networks.iter().map(row).collect::<Result<_>>()?;
    Ok((column.to_owned(), rows))
}
