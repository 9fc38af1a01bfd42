//! Run folders as a run, a resumed run and a full disk leave them.

use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use super::*;

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_run_writes_its_files_and_goes_on_where_its_checkpoint_is() {
    let root = TempDir::new().unwrap();
    let mut run = RunFolder::create_numbered(root.path(), "mnist", "small", 7).unwrap();
    let path = root.path().join("mnist-small-7-1");
    assert_eq!(run.path(), path);
    run.write_config("seed = 7\n").unwrap();
    for step in 1..=4 {
        run.append_metrics(step, &json!({ "loss": 0.5 })).unwrap();
        if step == 2 {
            run.save_checkpoint(step, |file| file.write_all(b"two"))
                .unwrap();
        }
    }
    // What a process leaves behind if it is killed while it writes.
    run.metrics.write_all(b"{\"outer_step\":5,\"lo").unwrap();
    fs::write(path.join(".unfinished-x"), "half").unwrap();
    drop(run);

    assert_eq!(
        fs::read(RunFolder::checkpoint_in(&path).unwrap()).unwrap(),
        b"two"
    );
    let mut run = RunFolder::resume(&path, 2).unwrap();
    assert_eq!(run.last_checkpoint(), Some(2));
    run.append_metrics(3, &json!({ "loss": f32::NAN })).unwrap();
    let lines = fs::read_to_string(path.join(METRICS)).unwrap();
    let expected = "{\"outer_step\":1,\"loss\":0.5}\n{\"outer_step\":2,\"loss\":0.5}\n\
                    {\"outer_step\":3,\"loss\":null}\n";
    assert_eq!(lines, expected);
    assert_eq!(names(&path), [CHECKPOINT, CONFIG, METRICS]);
}

#[test]
fn a_last_line_without_its_end_is_dropped_even_if_it_parses() {
    let dir = TempDir::new().unwrap();
    let mut run = RunFolder::create(dir.path()).unwrap();
    run.save_checkpoint(9, |_| Ok(())).unwrap();
    run.append_metrics(1, &json!({})).unwrap();
    run.metrics.write_all(b"{\"outer_step\":2}").unwrap();
    drop(run);
    RunFolder::resume(dir.path(), 9).unwrap();
    assert_eq!(
        fs::read(dir.path().join(METRICS)).unwrap(),
        b"{\"outer_step\":1}\n"
    );
}

#[test]
fn the_last_two_checkpoints_are_kept() {
    let dir = TempDir::new().unwrap();
    let mut run = RunFolder::create(dir.path()).unwrap();
    let read = |name| fs::read(dir.path().join(name)).unwrap();
    for step in 1..=3 {
        run.save_checkpoint(step, |file| file.write_all(&[step as u8]))
            .unwrap();
    }
    assert_eq!((read(CHECKPOINT), read(PREVIOUS)), (vec![3], vec![2]));
    assert_eq!(names(dir.path()), [CHECKPOINT, METRICS, PREVIOUS]);
    assert!(run.step_back().unwrap());
    assert_eq!((read(CHECKPOINT), read(BROKEN)), (vec![2], vec![3]));
    assert!(!run.step_back().unwrap());
    run.save_checkpoint(3, |file| file.write_all(&[4])).unwrap();
    assert_eq!((read(CHECKPOINT), read(PREVIOUS)), (vec![4], vec![2]));
}

/// A run that was killed between two saves keeps again what it had kept.
#[test]
fn a_checkpoint_that_was_kept_already_leaves_nothing_unfinished() {
    let dir = TempDir::new().unwrap();
    let mut run = RunFolder::create(dir.path()).unwrap();
    run.save_checkpoint(1, |file| file.write_all(&[1])).unwrap();
    run.keep_best().unwrap();
    run.keep_best().unwrap();
    assert_eq!(names(dir.path()), [BEST, CHECKPOINT, METRICS]);
    assert_eq!(fs::read(dir.path().join(BEST)).unwrap(), [1]);
}

#[test]
fn a_checkpoint_is_called_intact_only_if_it_is() {
    let dir = TempDir::new().unwrap();
    let mut run = RunFolder::create(dir.path()).unwrap();
    run.save_checkpoint(3, |file| file.write_all(b"three"))
        .unwrap();
    let fail = |run: &mut RunFolder| {
        let full = |_: &mut dyn Write| Err(io::ErrorKind::StorageFull.into());
        run.save_checkpoint(4, full).unwrap_err().to_string()
    };
    assert!(fail(&mut run).ends_with("of outer step 3, is intact"));
    fs::write(dir.path().join(CHECKPOINT), "thr").unwrap();
    assert!(fail(&mut run).ends_with("of outer step 3, is damaged"));
    fs::remove_file(dir.path().join(CHECKPOINT)).unwrap();
    assert!(fail(&mut run).ends_with("of outer step 3, is gone"));
}

#[test]
fn numbers_count_up_and_a_filled_folder_is_refused() {
    let root = TempDir::new().unwrap();
    for number in 1..=2 {
        let run = RunFolder::create_numbered(root.path(), "a", "b", 0).unwrap();
        assert!(run.path().ends_with(format!("a-b-0-{number}")));
        run.write("note", |_| Ok(())).unwrap();
    }
    let path = root.path().join("a-b-0-1");
    let lines = RunFolder::create(&path).unwrap_err().lines();
    let folder = path.display();
    let expected = format!("error: {folder} is not empty\nhint: --out names another folder");
    assert_eq!(lines, expected);
    let error = RunFolder::resume(&path, 1).unwrap_err();
    let expected = format!("error: {folder}: no checkpoint.safetensors there");
    assert_eq!(error.lines(), expected);
    fs::write(path.join(PREVIOUS), "one").unwrap();
    let lines = RunFolder::resume(&path, 1).unwrap_err().lines();
    let hint = format!(
        "hint: previous.safetensors is an earlier checkpoint: after `cp {folder}/previous.safetensors \
         {folder}/checkpoint.safetensors` the run goes on from it"
    );
    assert!(lines.ends_with(&hint), "{lines}");
    fs::write(path.join(CHECKPOINT), "two").unwrap();
    let lines = RunFolder::create(&path).unwrap_err().lines();
    assert!(lines.contains(&format!(
        "hint: --resume {folder} goes on with the run there"
    )));
}

#[test]
fn two_processes_cannot_write_to_one_run() {
    let dir = TempDir::new().unwrap();
    let mut run = RunFolder::create(dir.path()).unwrap();
    run.save_checkpoint(1, |_| Ok(())).unwrap();
    let error = RunFolder::resume(dir.path(), 1).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with(": another process is writing to this run")
    );
    drop(run);
    RunFolder::resume(dir.path(), 1).unwrap();
}

#[test]
fn a_file_where_a_folder_should_be_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let expected = format!("{} is a file, and a folder is needed there", file.display());
    for path in [file.clone(), file.join("runs")] {
        assert_eq!(RunFolder::create(&path).unwrap_err().to_string(), expected);
    }
    let numbered = RunFolder::create_numbered(&file, "a", "b", 0).unwrap_err();
    assert_eq!(numbered.to_string(), expected);
}

#[test]
fn a_folder_that_cannot_be_written_to_is_named() {
    // The one place of Linux where nobody, root included, makes a folder.
    if !Path::new("/sys/kernel").is_dir() {
        println!("skipped: no /sys on this system");
        return;
    }
    let line = RunFolder::create(Path::new("/sys/kernel/run"))
        .unwrap_err()
        .to_string();
    assert!(line.starts_with("cannot write /sys/kernel/run: "), "{line}");
    let file = Path::new("/sys/kernel/note");
    let line = write_atomically(file, |_| Ok(())).unwrap_err().to_string();
    assert!(
        line.starts_with("cannot write /sys/kernel/note: "),
        "{line}"
    );
    assert!(
        !line.contains(UNFINISHED) && !line.contains("os error"),
        "{line}"
    );
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_devices_stay() {
    use std::os::unix::fs::symlink;
    let dir = TempDir::new().unwrap();
    let [file, link, lost] = ["file", "link", "lost"].map(|name| dir.path().join(name));
    fs::write(&file, "old").unwrap();
    symlink("file", &link).unwrap();
    symlink("nowhere", &lost).unwrap();
    write_atomically(&link, |out| out.write_all(b"new")).unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read(&file).unwrap(), b"new");
    let device = PathBuf::from("/dev/null");
    for (path, why) in [
        (lost, "it is a link to what is not there"),
        (device, "something that is no regular file is there"),
        (
            dir.path().to_owned(),
            "something that is no regular file is there",
        ),
    ] {
        let line = write_atomically(&path, |_| Ok(())).unwrap_err().to_string();
        assert_eq!(line, format!("cannot write {}: {why}", path.display()));
    }
}

#[test]
fn a_folder_with_a_run_is_for_nothing_else() {
    let dir = TempDir::new().unwrap();
    refuse_run(dir.path(), "--out").unwrap();
    RunFolder::create(dir.path())
        .unwrap()
        .write_config("")
        .unwrap();
    let error = refuse_run(dir.path(), "--to").unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.lines().ends_with("\nhint: --to names another folder"));
}

#[test]
fn metrics_must_be_an_object() {
    let dir = TempDir::new().unwrap();
    let mut run = RunFolder::create(dir.path()).unwrap();
    let error = run.append_metrics(1, &0.5).unwrap_err();
    assert!(error.to_string().starts_with("metrics are not an object"));
    assert_eq!(fs::read(dir.path().join(METRICS)).unwrap(), b"");
}

/// Fills the disk under `dir` with a checkpoint, and looks at what is left.
fn fill(dir: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
    let path = dir.join("run");
    let mut run = RunFolder::create(&path).unwrap();
    run.save_checkpoint(3, |file| file.write_all(b"three"))
        .unwrap();
    let line = run.save_checkpoint(4, write).unwrap_err().to_string();
    let expected = format!(
        "cannot write {}: No space left on device; the last checkpoint, of outer step 3, is intact",
        path.join(CHECKPOINT).display()
    );
    assert_eq!(line, expected);
    assert_eq!(fs::read(path.join(CHECKPOINT)).unwrap(), b"three");
    assert_eq!(names(&path), [CHECKPOINT, METRICS]);
}

#[test]
fn a_device_without_space_leaves_the_last_checkpoint() {
    let Ok(mut full) = OpenOptions::new().write(true).open("/dev/full") else {
        println!("skipped: no /dev/full on this system");
        return;
    };
    let dir = TempDir::new().unwrap();
    fill(dir.path(), |file| {
        file.write_all(b"half")?;
        full.write_all(b"the other half")
    });
}

#[test]
fn a_full_disk_leaves_the_last_checkpoint() {
    const NAME: &str = "run::run_folder::tests::a_full_disk_leaves_the_last_checkpoint";
    const DISK: &str = "GTN_TEST_TINY_DISK";
    if let Some(disk) = std::env::var_os(DISK) {
        return fill(Path::new(&disk), |file| file.write_all(&vec![1; 1 << 20]));
    }
    // This test again, in a namespace of its own where it may mount a disk of 256 KiB; the
    // mount is gone with the process.
    let dir = TempDir::new().unwrap();
    let mount = "mount -t tmpfs -o size=256k none \"$GTN_TEST_TINY_DISK\" && exec \"$@\"";
    let result = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", mount, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env(DISK, dir.path())
        .output();
    match result {
        Ok(output) if output.status.success() => {
            assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        }
        Ok(output) if output.status.code() == Some(101) => {
            panic!("{}", String::from_utf8_lossy(&output.stdout));
        }
        _ => println!("skipped: no tiny disk can be mounted on this system"),
    }
}
