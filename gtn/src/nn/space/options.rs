//! What may stand after the name of a space: sizes, weight norm, and what is held out.

use crate::error::{Error, Result};
use std::fmt::Write;

/// The sizes of a space's networks, and its split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Options {
    /// Channels of the first stage.
    pub(super) channels: usize,
    /// Cells of a stage; `None` for spaces whose codes decide it.
    pub(super) cells: Option<usize>,
    /// Whether weights have weight norm.
    pub(super) weight_norm: bool,
    /// The published channels, cells and weight norm.
    pub(super) published: (usize, Option<usize>, bool),
    /// How many networks of the split are held out: they are never drawn.
    pub(super) held_out: usize,
    /// The number of the split.
    pub(super) split: u64,
}

impl Options {
    /// Those of the published networks, with nothing held out.
    pub(super) const fn published(
        channels: usize,
        cells: Option<usize>,
        weight_norm: bool,
    ) -> Self {
        Self {
            channels,
            cells,
            weight_norm,
            published: (channels, cells, weight_norm),
            held_out: 0,
            split: 0,
        }
    }

    /// Reads `key=value,…` over these.
    pub(super) fn parse(mut self, text: &str) -> Result<Self> {
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let number = |least: usize, most: usize| match value.parse() {
                Ok(number) if (least..=most).contains(&number) => Ok(number),
                _ => Err(Error::usage(format!(
                    "{key}: a number from {least} to {most} is needed, not `{value}`"
                ))),
            };
            match key {
                "channels" => self.channels = number(1, 512)?,
                "cells" if self.cells.is_some() => self.cells = Some(number(1, 20)?),
                "held_out" => self.held_out = number(0, 1 << 20)?,
                "split" => self.split = number(0, 1 << 30)? as u64,
                "weight_norm" => {
                    self.weight_norm = match value {
                        "on" => true,
                        "off" => false,
                        _ => {
                            return Err(Error::usage(format!(
                                "weight_norm: on or off is needed, not `{value}`"
                            )));
                        }
                    }
                }
                _ => {
                    let cells = if self.cells.is_some() { "cells, " } else { "" };
                    let error = Error::usage(format!("there is no option `{key}`"));
                    return Err(error.hint(format!(
                        "channels, {cells}weight_norm, held_out and split, as in channels=8"
                    )));
                }
            }
        }
        Ok(self)
    }

    /// A name, and after it what differs from the published networks.
    pub(super) fn after(&self, name: &str) -> String {
        let mut text = name.to_owned();
        let (channels, cells, weight_norm) = self.published;
        if self.channels != channels {
            let _ = write!(text, ",channels={}", self.channels);
        }
        if let Some(own) = self.cells.filter(|_| self.cells != cells) {
            let _ = write!(text, ",cells={own}");
        }
        if self.weight_norm != weight_norm {
            text.push_str(if self.weight_norm {
                ",weight_norm=on"
            } else {
                ",weight_norm=off"
            });
        }
        text
    }

    /// The same, and what is held out.
    pub(super) fn with_split(&self, mut text: String) -> String {
        if self.held_out > 0 {
            let _ = write!(text, ",held_out={}", self.held_out);
        }
        if self.split > 0 {
            let _ = write!(text, ",split={}", self.split);
        }
        text
    }

    /// The words before the first layer.
    pub(super) fn settings(&self) -> &'static str {
        if self.weight_norm {
            "init pytorch | "
        } else {
            "init pytorch | weight_norm off | "
        }
    }
}
