//! Which launch makes each array, which launches read it, and how many bytes of the arena it takes: one table, made
//! once for every order of launches. Orders, recomputation and layout all look things up here.

use crate::plan::graph::{Graph, Item};
use crate::tape::Id;
use std::ops::Range;

/// An array in memory: an input of the plan, or what a launch makes.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) id: Id,
    /// Bytes in the arena: 0 for inputs and results of the plan, which lie in the caller's memory.
    pub(super) bytes: usize,
    /// The launch that makes it; `None` for an input.
    pub(super) made: Option<usize>,
    /// The launches that read it, ascending, if launches are in an order in which they can run.
    pub(super) reads: Vec<usize>,
}

impl Life {
    /// The last launch that needs it: that which reads it last, or else makes it.
    pub(super) fn last(&self) -> usize {
        let read = self.reads.last().copied();
        read.or(self.made).unwrap_or(0)
    }
}

/// All arrays of a list of launches.
#[derive(Debug)]
pub(super) struct Lives {
    /// First those that launches make, in the order of launches, then inputs.
    all: Vec<Life>,
    /// The arrays that launches read, by their place in `all`: launch after launch, each array once a launch.
    reads: Vec<usize>,
    /// For each launch: where its part of `reads` ends.
    ends: Vec<usize>,
    /// For each launch the arrays that it makes.
    makes: Vec<Range<usize>>,
    /// For each entry of the graph its array.
    of: Vec<Option<usize>>,
}

impl Lives {
    pub(super) fn new(graph: &Graph, launches: &[Item]) -> Self {
        let mut lives = Self {
            all: Vec::new(),
            reads: Vec::new(),
            ends: Vec::with_capacity(launches.len()),
            makes: Vec::with_capacity(launches.len()),
            of: vec![None; graph.nodes.len()],
        };
        for (at, item) in launches.iter().enumerate() {
            let first = lives.all.len();
            for &id in Graph::computes(item) {
                lives.push(id, graph.bytes(id), Some(at));
            }
            lives.makes.push(first..lives.all.len());
        }
        for &out in &graph.outs {
            if let Some(life) = lives.of[graph.resolve(out).0] {
                lives.all[life].bytes = 0;
            }
        }
        for (at, item) in launches.iter().enumerate() {
            let begin = lives.reads.len();
            for id in graph.reads(item) {
                let life = lives.known_or_input(id);
                // Each once.
                if lives.all[life].reads.last() != Some(&at) {
                    lives.all[life].reads.push(at);
                    lives.reads.push(life);
                }
            }
            lives.reads[begin..].sort_unstable();
            lives.ends.push(lives.reads.len());
        }
        lives
    }

    fn push(&mut self, id: Id, bytes: usize, made: Option<usize>) -> usize {
        self.of[id] = Some(self.all.len());
        self.all.push(Life {
            id,
            bytes,
            made,
            reads: Vec::new(),
        });
        self.all.len() - 1
    }

    fn known_or_input(&mut self, id: Id) -> usize {
        self.of[id].unwrap_or_else(|| self.push(id, 0, None))
    }

    /// Says that something after all launches, which is number `end`, reads an entry.
    pub(super) fn read_at_end(&mut self, id: Id, end: usize) {
        let life = self.known_or_input(id);
        let reads = &mut self.all[life].reads;
        if reads.last() != Some(&end) {
            reads.push(end);
        }
    }

    pub(super) fn all(&self) -> &[Life] {
        &self.all
    }

    /// What lies in the arena, each with the launch that makes it, in the order of these.
    pub(super) fn in_arena(&self) -> impl Iterator<Item = (usize, &Life)> {
        let arrays = self.all.iter().filter(|life| life.bytes > 0);
        arrays.filter_map(|life| Some((life.made?, life)))
    }

    /// The array of an entry, if a launch makes or reads it.
    pub(super) fn of(&self, id: Id) -> Option<&Life> {
        Some(&self.all[self.of[id]?])
    }

    /// The launch that makes an entry.
    pub(super) fn maker(&self, id: Id) -> Option<usize> {
        self.of(id)?.made
    }

    /// The last launch that reads an entry.
    pub(super) fn last_read(&self, id: Id) -> Option<usize> {
        self.of(id)?.reads.last().copied()
    }

    /// The arrays that a launch reads, each once, by their places in [`Lives::all`].
    pub(super) fn reads(&self, launch: usize) -> &[usize] {
        let begin = launch.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.reads[begin..self.ends[launch]]
    }

    /// The arrays that it makes.
    pub(super) fn makes(&self, launch: usize) -> &[Life] {
        &self.all[self.makes[launch].clone()]
    }
}
