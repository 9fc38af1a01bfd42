//! Errors. One line says what went wrong and where; a second line, where there is one, says what to do about
//! it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::Path;

/// What a library function returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where an error comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The command line or the settings make no sense.
    Usage,
    /// A data set cannot be read.
    Data,
    /// A run folder, checkpoint or picture cannot be read or written.
    Run,
    /// The numbers of a training run away.
    NotFinite,
    /// The engine fails.
    Engine,
    /// The device fails, or has too little memory at the moment.
    Device,
}

/// An error of the program.
///
/// ```
/// use gtn::error::{Error, ErrorKind};
/// let error = Error::new(ErrorKind::Usage, "--threads is 0").hint("leave it out to use all cores");
/// assert_eq!(error.to_string(), "--threads is 0");
/// assert_eq!(error.exit_code(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
}

impl Error {
    /// An error with a message, which becomes one line.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: one_line(&message.to_string()),
            hint: None,
        }
    }

    /// A mistake in the command line or the settings.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// Something is wrong with a data set.
    pub fn data(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// Something is wrong with a run's files.
    pub fn run(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Run, message)
    }

    /// The engine cannot go on.
    pub fn engine(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Engine, message)
    }

    /// A file cannot be read or written. The reason is the system's own text up to its error number: behind
    /// the number stands the name of a temporary file, which tells the user nothing.
    pub fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        let reason = error.to_string();
        let reason = reason.split(" (os error").next().unwrap_or_default();
        Self::run(format!("cannot {what} {}: {reason}", path.display()))
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(one_line(&hint.to_string()));
        self
    }

    /// Adds what the user can do, if there is something.
    #[must_use]
    pub fn hint_if(self, hint: Option<impl fmt::Display>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Adds to the message.
    #[must_use]
    pub fn and(mut self, more: impl fmt::Display) -> Self {
        self.message = one_line(&format!("{}; {more}", self.message));
        self
    }

    /// Puts a file, or another place, before the message.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = one_line(&format!("{place}: {}", self.message));
        self
    }

    /// The same error of another kind.
    #[must_use]
    pub fn of(self, kind: ErrorKind) -> Self {
        Self { kind, ..self }
    }

    /// Where it comes from.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The program's exit code: 2 if it was called wrongly, else 1.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Usage => 2,
            ErrorKind::Data
            | ErrorKind::Run
            | ErrorKind::NotFinite
            | ErrorKind::Engine
            | ErrorKind::Device => 1,
        }
    }

    /// The lines that a user gets: the error, and the hint if there is one.
    pub fn lines(&self) -> String {
        match &self.hint {
            Some(hint) => format!("error: {}\nhint: {hint}", self.message),
            None => format!("error: {}", self.message),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<autograd::Error> for Error {
    fn from(error: autograd::Error) -> Self {
        match error {
            autograd::Error::Device(error) => error.into(),
            autograd::Error::Program(error) => error.into(),
            error => Self::engine(error),
        }
    }
}

impl From<kernels::ProgramError> for Error {
    fn from(error: kernels::ProgramError) -> Self {
        match error {
            kernels::ProgramError::Device(error) => error.into(),
            error => Self::engine(error),
        }
    }
}

impl From<kernels::DeviceError> for Error {
    fn from(error: kernels::DeviceError) -> Self {
        Self::new(ErrorKind::Device, error)
    }
}

impl From<tensor::ArrayError> for Error {
    fn from(error: tensor::ArrayError) -> Self {
        Self::engine(error)
    }
}

/// The message is clap's text up to the usage line. A tip in that text becomes the hint.
impl From<clap::Error> for Error {
    fn from(error: clap::Error) -> Self {
        use clap::error::ErrorKind::{InvalidValue, ValueValidation};
        let text = error.to_string();
        let text = text.split("\n\nUsage:").next().unwrap_or_default();
        let text = text
            .split("\n\nFor more information")
            .next()
            .unwrap_or_default();
        let (message, tip) = match text.split_once("tip:") {
            Some((message, tip)) => (message, Some(tip)),
            None => (text, None),
        };
        let usage = Self::usage(message.trim_start_matches("error:"));
        match (tip, error.kind()) {
            (Some(tip), _) => usage.hint(tip),
            (None, InvalidValue | ValueValidation) => usage,
            (None, _) => usage.hint("--help lists what there is"),
        }
    }
}

/// Text on one line, with control characters escaped: a hostile file may use them to play tricks on a
/// terminal.
pub(crate) fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown = String::with_capacity(line.len());
    for c in line.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}
