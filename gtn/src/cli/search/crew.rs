//! The workers of all ranks. The first rank tells the others what to compute.

use super::super::stop;
use crate::error::{ErrorKind, Result};
use crate::ranks::Ranks;
use crate::search::{Entry, Lab, Ledger, Task};
use kernels::Device;
use serde_json::json;
use std::path::Path;

/// Tasks of every worker between two exchanges of the ranks. With more, ranks wait less for the one with the
/// largest networks, but a killed process loses more results.
const EACH: usize = 4;

/// All workers. The first rank keeps the results and decides what comes next. Each rank has a lab of its own.
pub(super) struct Crew<'a> {
    pub(super) lab: &'a Lab<'a>,
    pub(super) device: &'a Device,
    /// Networks at once on every rank.
    pub(super) workers: usize,
    pub(super) ranks: &'a Ranks,
}

impl Crew<'_> {
    /// For the first rank: computes tasks, and passes every result to `done`, which may stop the work by
    /// returning `false`.
    ///
    /// # Errors
    /// Those of `done`, or of any rank.
    pub(super) fn compute(
        &self,
        tasks: &[Task],
        mut done: impl FnMut(Entry) -> Result<bool>,
    ) -> Result<()> {
        if self.ranks.count() == 1 {
            return self.lab.run(self.device, self.workers, tasks, done);
        }
        for lot in tasks.chunks(EACH * self.workers * self.ranks.count()) {
            self.ranks.gather(Ok(lot.to_vec()))?;
            let mut go = true;
            for entry in self.share(lot)? {
                go &= done(entry)?;
            }
            if !go {
                break;
            }
        }
        Ok(())
    }

    /// For the other ranks: computes what the first rank asks for, until it lets them go.
    ///
    /// # Errors
    /// Those of any rank.
    pub(super) fn help(&self) -> Result<()> {
        loop {
            let mut said: Vec<Vec<Task>> = self.ranks.gather(Ok(Vec::new()))?;
            let lot = said.swap_remove(0);
            if lot.is_empty() {
                return Ok(());
            }
            self.share(&lot)?;
        }
    }

    /// Lets the other ranks go.
    ///
    /// # Errors
    /// Those of any rank.
    pub(super) fn let_go(&self) -> Result<()> {
        self.ranks.gather(Ok(Vec::<Task>::new()))?;
        Ok(())
    }

    /// Deals out a lot of tasks by number, and gives the results of all ranks.
    fn share(&self, lot: &[Task]) -> Result<Vec<Entry>> {
        let own = lot.iter().skip(self.ranks.number());
        let own: Vec<Task> = own.step_by(self.ranks.count()).cloned().collect();
        let mut found = Vec::new();
        let ran = self.lab.run(self.device, self.workers, &own, |entry| {
            found.push(entry);
            Ok(!stop::asked())
        });
        let all = self.ranks.gather(ran.map(|()| (found, stop::asked())))?;
        if all.iter().any(|(_, asked)| *asked) {
            stop::ask();
        }
        Ok(all.into_iter().flat_map(|(found, _)| found).collect())
    }
}

/// Opens the results in a folder, on the first rank only. They belong to a run after `outer_step` outer
/// steps, and to the settings of the lab.
///
/// # Errors
/// If the results there, or another rank, are of other settings.
pub(super) fn ledger(
    folder: &Path,
    lab: &Lab<'_>,
    outer_step: u64,
    ranks: &Ranks,
) -> Result<Option<Ledger>> {
    let settings = json!({
        "run": lab.config.to_toml(), "outer_step": outer_step, "space": lab.space.name(), "seeds": lab.seeds,
        "images": lab.images, "area": lab.area,
    });
    ranks.same("other settings", ErrorKind::Usage, || Ok(settings.clone()))?;
    let open = || Ledger::open(folder, &settings);
    ranks.is_first().then(open).transpose()
}
