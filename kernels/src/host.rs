//! How much memory the host has left for a program.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Bytes of host memory that this process can take without swapping and without being killed for it. That is
/// what Linux calls available, capped by the limits of the process's control groups (containers, Slurm,
/// systemd). `None` where it is unknown, as on other systems.
pub fn host_free_bytes() -> Option<usize> {
    let text = read_to_string("/proc/meminfo").ok()?;
    let mut lines = text.lines();
    let available = lines.find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: usize = available.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let available = kib.checked_mul(1 << 10)?;
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let left = left_by_groups(Path::new("/sys/fs/cgroup"), &groups);
    Some(left.map_or(available, |left| left.min(available)))
}

/// Names of a group's files, in the first and the second version of control groups (man cgroups(7); Linux,
/// Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst).
struct Names {
    limit: &'static str,
    used: &'static str,
    /// The line of `memory.stat` that counts cached file pages not used lately. The kernel reclaims these
    /// first, so they count as free.
    cache: &'static str,
}

const FIRST: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cache: "total_inactive_file ",
};

const SECOND: Names = Names {
    limit: "memory.max",
    used: "memory.current",
    cache: "inactive_file ",
};

/// The fewest bytes that any control group of the process leaves, ancestors included. `groups` is what
/// `/proc/self/cgroup` says, `root` where the groups are mounted. `None` if no group has a limit.
fn left_by_groups(root: &Path, groups: &str) -> Option<usize> {
    let of_line = |line: &str| -> Option<usize> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (root, names) = if controllers.is_empty() {
            (root.to_owned(), &SECOND)
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("memory"), &FIRST)
        } else {
            return None;
        };
        // In a container the path may be that of the host, and the group itself is mounted as the root.
        let group = root.join(path.trim_start_matches('/'));
        let above = group.ancestors().take_while(|at| at.starts_with(&root));
        let places: Vec<PathBuf> = above.map(Path::to_owned).collect();
        places.iter().filter_map(|at| left_in(at, names)).min()
    };
    groups.lines().filter_map(of_line).min()
}

/// Bytes that a group leaves. `None` if it has no limit, or is not seen here.
fn left_in(group: &Path, names: &Names) -> Option<usize> {
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let file = |name: &str| number(&read_to_string(group.join(name)).ok()?);
    let (limit, used) = (file(names.limit)?, file(names.used)?);
    let stat = read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cache = stat.lines().find_map(|line| line.strip_prefix(names.cache));
    let cache = cache.and_then(number).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    /// Groups, each with its limit, what is used of it, and what of that is cache.
    fn groups(names: &Names, folder: &str, of: &[(&str, &str, usize, usize)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, limit, used, cache) in of {
            let group = root.path().join(folder).join(path);
            create_dir_all(&group).unwrap();
            let stat = format!("anon 5\n{}{cache}\nkernel 7\n", names.cache);
            write(group.join(names.limit), format!("{limit}\n")).unwrap();
            write(group.join(names.used), format!("{used}\n")).unwrap();
            write(group.join("memory.stat"), stat).unwrap();
        }
        root
    }

    #[test]
    fn the_tightest_group_counts_and_caches_are_free() {
        let all = [
            ("a", "1000", 700, 0),
            ("a/b", "max", 500, 0),
            ("a/b/c", "600", 500, 300),
        ];
        let root = groups(&SECOND, "", &all);
        let left = |text| left_by_groups(root.path(), text);
        assert_eq!(left("0::/a/b/c\n"), Some(300));
        assert_eq!(left("0::/a/b\n"), Some(300));
        assert_eq!(left("0::/elsewhere\n"), None);
        let root = groups(
            &SECOND,
            "",
            &[("a", "1000", 700, 0), ("a/b", "600", 500, 300)],
        );
        assert_eq!(left_by_groups(root.path(), "0::/a/b\n"), Some(300));
        assert_eq!(left_by_groups(root.path(), "0::/a/b/unseen\n"), Some(300));
        // More than allowed is in use: nothing is left.
        let root = groups(&SECOND, "", &[("a", "100", 700, 0)]);
        assert_eq!(left_by_groups(root.path(), "0::/a\n"), Some(0));
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root() {
        let root = groups(&SECOND, "", &[("", "4096", 1096, 0)]);
        assert_eq!(left_by_groups(root.path(), "0::/\n"), Some(3000));
        assert_eq!(left_by_groups(root.path(), "0::/docker/0123\n"), Some(3000));
    }

    #[test]
    fn the_first_version_has_other_names_and_an_endless_number() {
        let all = [
            ("", "9223372036854771712", 5000, 0),
            ("job", "4000", 3000, 1000),
        ];
        let root = groups(&FIRST, "memory", &all);
        let text = "9:name=systemd:/x\n8:pids:/job\n4:cpu,memory:/job\n";
        assert_eq!(left_by_groups(root.path(), text), Some(2000));
        assert_eq!(left_by_groups(root.path(), "8:pids:/job\n"), None);
        let free = left_by_groups(root.path(), "4:memory:/\n");
        assert_eq!(free, Some(9_223_372_036_854_771_712 - 5000));
    }

    #[test]
    fn this_machine_has_some() {
        if cfg!(target_os = "linux") {
            assert!(host_free_bytes().is_some_and(|bytes| bytes > 1 << 20));
        }
    }
}
