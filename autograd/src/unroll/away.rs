//! Snapshots away from the device: in the host's memory, and in a file.
//!
//! A thread of its own writes and reads the file, so that the device works on meanwhile: a snapshot is on its
//! way to the file as the next steps are taken, and on its way back as the steps after it are reversed.

use super::records::Records;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// How many snapshots lie where: those that are needed last in a file, the next in the host's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) on_disk: usize,
    pub(super) in_host: usize,
    /// The folder of the file.
    pub(super) folder: PathBuf,
}

/// The most snapshots on their way to the file or back at one time. Each needs a buffer in the host's
/// memory.
const UNDER_WAY: usize = 2;

impl Places {
    pub(super) fn count(&self) -> usize {
        self.on_disk.saturating_add(self.in_host)
    }

    /// Bytes in the host's memory and in the file, of `away` snapshots.
    pub(super) fn bytes(&self, away: usize, snapshot: usize) -> [usize; 2] {
        let disk = self.on_disk.min(away);
        let staging = if disk > 0 { UNDER_WAY } else { 0 };
        let host = (away - disk).saturating_add(staging);
        [host, disk].map(|count| count.saturating_mul(snapshot))
    }
}

/// The snapshots themselves.
#[derive(Debug, Default)]
pub(super) struct Away {
    on_disk: usize,
    host: Vec<Vec<u8>>,
    file: Option<Worker>,
}

impl Away {
    /// Memory for `count` snapshots of `snapshot` bytes each, and the file if there is one.
    pub(super) fn new(places: &Places, count: usize, snapshot: usize) -> Result<Self> {
        let on_disk = places.on_disk.min(count);
        let file = (on_disk > 0)
            .then(|| Worker::start(places, on_disk, snapshot))
            .transpose()?;
        Ok(Self {
            on_disk,
            host: vec![vec![0; snapshot]; count - on_disk],
            file,
        })
    }

    /// Takes a copy of a state.
    pub(super) fn put(&mut self, place: usize, states: &Records, record: usize) -> Result<()> {
        match &mut self.file {
            Some(file) if place < self.on_disk => {
                let mut bytes = file.spare()?;
                states.read(record, &mut bytes)?;
                file.send(Task::Write(place, bytes))
            }
            _ => states.read(record, &mut self.host[place - self.on_disk]),
        }
    }

    /// Begins to read a snapshot that will be fetched.
    pub(super) fn announce(&mut self, place: usize) -> Result<()> {
        match &mut self.file {
            Some(file) if place < self.on_disk => {
                let bytes = file.spare()?;
                file.send(Task::Read(place, bytes))
            }
            _ => Ok(()),
        }
    }

    /// Copies a snapshot, announced before, into a record of states.
    pub(super) fn fetch(&mut self, place: usize, states: &Records, record: usize) -> Result<()> {
        match &mut self.file {
            Some(file) if place < self.on_disk => {
                let bytes = file.await_read(place)?;
                let written = states.write(record, &bytes);
                file.spares.push(bytes);
                written
            }
            _ => states.write(record, &self.host[place - self.on_disk]),
        }
    }
}

/// What the thread is to do, with the memory for it.
enum Task {
    Write(usize, Vec<u8>),
    Read(usize, Vec<u8>),
}

/// What it did: the place if something was read, the memory, and how it went.
type Done = (Option<usize>, Vec<u8>, std::io::Result<()>);

/// The thread with the file.
#[derive(Debug)]
struct Worker {
    tasks: Option<SyncSender<Task>>,
    done: Receiver<Done>,
    spares: Vec<Vec<u8>>,
    thread: Option<JoinHandle<()>>,
    /// For messages.
    folder: PathBuf,
    file_bytes: usize,
}

impl Worker {
    fn start(places: &Places, on_disk: usize, snapshot: usize) -> Result<Self> {
        // It has no name: the system removes it however the program ends.
        let file = tempfile::tempfile_in(&places.folder);
        file.and_then(|file| Self::with(file, places, on_disk, snapshot))
            .map_err(|error| Error::SnapshotFile {
                folder: places.folder.clone(),
                bytes: on_disk.saturating_mul(snapshot),
                reason: error.to_string(),
            })
    }

    fn with(
        mut file: File,
        places: &Places,
        on_disk: usize,
        snapshot: usize,
    ) -> std::io::Result<Self> {
        let (tasks, waiting) = sync_channel(UNDER_WAY);
        let (finished, done) = sync_channel(UNDER_WAY);
        let work = move || {
            for task in waiting {
                // Sending fails only when the run is over and nobody listens.
                let _ = finished.send(perform(&mut file, snapshot, task));
            }
        };
        let thread = std::thread::Builder::new().name("snapshots".into());
        Ok(Self {
            thread: Some(thread.spawn(work)?),
            tasks: Some(tasks),
            done,
            spares: vec![vec![0; snapshot]; UNDER_WAY],
            folder: places.folder.clone(),
            file_bytes: on_disk.saturating_mul(snapshot),
        })
    }

    fn failed(&self, reason: &impl ToString) -> Error {
        Error::SnapshotFile {
            folder: self.folder.clone(),
            bytes: self.file_bytes,
            reason: reason.to_string(),
        }
    }

    /// Waits for the thread: the place if something was read, and the memory. After a failure nothing is under way and all
    /// memory is spare, so that a later gradient begins as the first did.
    fn wait(&mut self) -> Result<(Option<usize>, Vec<u8>)> {
        let (place, bytes, how) = self
            .done
            .recv()
            .map_err(|_| self.failed(&"its thread has ended"))?;
        let Err(error) = how else {
            return Ok((place, bytes));
        };
        self.spares.push(bytes);
        while self.spares.len() < UNDER_WAY
            && let Ok((_, bytes, _)) = self.done.recv()
        {
            self.spares.push(bytes);
        }
        Err(self.failed(&error))
    }

    fn spare(&mut self) -> Result<Vec<u8>> {
        match self.spares.pop() {
            Some(bytes) => Ok(bytes),
            None => Ok(self.wait()?.1),
        }
    }

    fn await_read(&mut self, place: usize) -> Result<Vec<u8>> {
        loop {
            match self.wait()? {
                (Some(read), bytes) if read == place => return Ok(bytes),
                (_, bytes) => self.spares.push(bytes),
            }
        }
    }

    fn send(&self, task: Task) -> Result<()> {
        let sent = self.tasks.as_ref().map(|tasks| tasks.send(task));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(self.failed(&"its thread has ended")),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // What it was doing no longer matters.
            while self.done.recv().is_ok() {}
            let _ = thread.join();
        }
    }
}

fn perform(file: &mut File, snapshot: usize, task: Task) -> Done {
    let at = |place: usize| SeekFrom::Start((place * snapshot) as u64);
    match task {
        Task::Write(place, bytes) => {
            let how = file.seek(at(place)).and_then(|_| file.write_all(&bytes));
            (None, bytes, how)
        }
        Task::Read(place, mut bytes) => {
            let how = file
                .seek(at(place))
                .and_then(|_| file.read_exact(&mut bytes));
            (Some(place), bytes, how)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::bytes_of;
    use super::*;
    use crate::spec::ArraySpec;
    use kernels::Device;
    use tensor::{Array, DType};

    fn states(device: &Device) -> Records {
        let specs = vec![ArraySpec::new("w", DType::F64, [3])];
        let bytes = bytes_of(&specs, 2).expect("a size");
        Records::new(specs, 2, device.alloc(bytes).expect("memory"))
    }

    fn number(states: &Records, record: usize) -> f64 {
        states.get(record, 0).expect("an array").to_f64_vec()[0]
    }

    fn set(states: &Records, record: usize, value: f64) {
        let array = Array::new([3], vec![value; 3]).expect("three numbers");
        states
            .view(record, 0)
            .write(array.bytes())
            .expect("it fits");
    }

    #[test]
    fn what_was_put_away_comes_back() {
        let device = Device::cpu(Some(1)).expect("a device");
        let states = states(&device);
        let places = Places {
            on_disk: 5,
            in_host: 2,
            folder: std::env::temp_dir(),
        };
        let mut away = Away::new(&places, 7, 64).expect("a file");
        for round in 0..3 {
            for place in 0..7 {
                set(&states, 0, f64::from(10 * round + place));
                away.put(place as usize, &states, 0).expect("it is put");
            }
            for place in (0..7).rev() {
                away.announce(place as usize).expect("it is announced");
                away.fetch(place as usize, &states, 1).expect("it is there");
                assert_eq!(number(&states, 1), f64::from(10 * round + place));
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_that_says_where() {
        let device = Device::cpu(Some(1)).expect("a device");
        let states = states(&device);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("read-only");
        std::fs::write(&path, "").expect("a file");
        let places = Places {
            on_disk: 4,
            in_host: 0,
            folder: folder.path().into(),
        };
        let file = File::open(&path).expect("a file");
        let mut away = Away {
            on_disk: 4,
            host: Vec::new(),
            file: Some(Worker::with(file, &places, 4, 64).expect("a thread")),
        };
        let written = (0..4).try_for_each(|place| away.put(place, &states, 0));
        let said = written.expect_err("it is read-only").to_string();
        assert!(said.starts_with("snapshots on disk: "), "{said}");
        assert!(said.contains("takes 256 bytes in "), "{said}");
        // All that was under way is over: later gradients fail alike, and none waits for ever.
        for _ in 0..3 {
            let written = (0..4).try_for_each(|place| away.put(place, &states, 0));
            assert_eq!(written.expect_err("as before").to_string(), said);
        }
    }
}
