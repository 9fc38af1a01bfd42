//! Which launches of a program become one launch in its graph. Small maps whose steps need not wait for each
//! other run side by side. Maps that wait for each other run in turn on one block, if one block is enough for
//! each.
//!
//! At first only maps of the same code are joined: learners of other widths have that code, too. When a
//! program has run so often that kernels of its own pay, any maps are joined. Of these kernels, a learner of
//! another width shares four fifths.
//!
//! A small launch takes about as long as it takes to begin one, and a graph that forks for it waits at both
//! ends. Nothing is joined if the program would then take longer, by an estimate of how long launches take.

use super::lower::{JOINED, Launch, PARAMETERS};
use super::times::Times;
use std::collections::BTreeSet;

/// Most blocks of a map that is joined to others: two for each multiprocessor of a large device.
const FULL: u32 = 264;

/// Most steps of a program whose maps are joined. Every joined launch costs a count that grows with the
/// square of the steps: some 10 ms in all for 300 steps and two seconds for 4,000. Learners that come once
/// would pay that for nothing.
const MOST_STEPS: usize = 300;

/// Most blocks of a map that one block may do in turn. Two take it about as long as a launch of their own
/// would.
const IN_TURN: u32 = 2;

/// Microseconds on an H200, about, to begin a launch. This and the next three tell only which launches others
/// wait for and which may wait.
const BEGIN: u32 = 1;
/// Microseconds, about, that a small map takes: for its first block.
const FIRST: u32 = 2;
/// Microseconds, about, that it takes for each block that follows in turn.
const AGAIN: u32 = 1;
/// Microseconds, about, that any other launch takes.
const LARGE: u32 = 10;

/// Which maps share launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    /// Those of the same code, side by side.
    Alike,
    /// All that may, in turn as well.
    Any,
}

/// A node of a graph: launches that follow one another, and the earlier nodes that it waits for.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) launches: Vec<Launch>,
    pub(super) waits: Vec<usize>,
}

/// The nodes of a program. `ends` says for each step how many launches there are up to its end, `waits` for
/// which earlier steps it waits.
pub(super) fn nodes(
    launches: &[Launch],
    ends: &[usize],
    waits: &[Vec<usize>],
    join: Join,
) -> Vec<Node> {
    let begins = std::iter::once(0).chain(ends.iter().copied());
    let steps: Vec<&[Launch]> = begins.zip(ends).map(|(a, &b)| &launches[a..b]).collect();
    let small = steps.iter().map(|launches| Small::of(launches)).collect();
    let node = |group: Group| Node {
        launches: match &group.strands[..] {
            [strand] if strand.len() == 1 => steps[strand[0]].to_vec(),
            strands => {
                let launches =
                    |strand: &Vec<usize>| strand.iter().flat_map(|&s| steps[s]).collect();
                vec![Launch::joined(strands.iter().map(launches).collect())]
            }
        },
        waits: group.waits.into_iter().collect(),
    };
    merged(small, waits, join).into_iter().map(node).collect()
}

/// What is asked of a step that is one small map.
#[derive(Clone, Debug)]
struct Small<'a> {
    code: &'a str,
    blocks: u32,
    bytes: usize,
}

impl<'a> Small<'a> {
    fn of(launches: &'a [Launch]) -> Option<Self> {
        let [one] = launches else { return None };
        let small = one.maps.is_some() && one.blocks <= FULL;
        small.then(|| Self {
            code: &one.function,
            blocks: one.blocks,
            bytes: one.args.len(),
        })
    }
}

/// Steps that become one node: small maps that share a launch, or a single step of any kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    /// Side by side; the steps of each in turn.
    strands: Vec<Vec<usize>>,
    waits: BTreeSet<usize>,
}

/// Groups by dependencies, each after those that it waits for.
fn merged(small: Vec<Option<Small<'_>>>, waits: &[Vec<usize>], join: Join) -> Vec<Group> {
    let group = |(step, waits): (usize, &Vec<usize>)| {
        Some(Group {
            strands: vec![vec![step]],
            waits: waits.iter().copied().collect(),
        })
    };
    let mut merging = Merging {
        groups: waits.iter().enumerate().map(group).collect(),
        times: Times::default(),
        small,
        join,
    };
    merging.count();
    if waits.len() <= MOST_STEPS {
        if join == Join::Any {
            merging.join_in_turn();
        }
        merging.join_side_by_side();
    }
    merging.end()
}

/// Groups, by their first steps, as they grow.
struct Merging<'a> {
    small: Vec<Option<Small<'a>>>,
    groups: Vec<Option<Group>>,
    times: Times,
    join: Join,
}

impl Merging<'_> {
    fn group(&self, at: usize) -> &Group {
        self.groups[at].as_ref().expect("it has not joined another")
    }

    /// The small maps of a group, or none if it is something else.
    fn parts(&self, at: usize) -> Option<Vec<&Small<'_>>> {
        let steps = self.groups[at].as_ref()?.strands.iter().flatten();
        steps.map(|&step| self.small[step].as_ref()).collect()
    }

    /// The parts of two groups, if they may be one launch.
    fn both(&self, one: usize, other: usize) -> Option<Vec<&Small<'_>>> {
        let parts = [self.parts(one)?, self.parts(other)?].concat();
        // Each with an entry, and room to align it.
        let bytes: usize = parts.iter().map(|part| part.bytes + 24).sum();
        (parts.len() <= JOINED && bytes <= PARAMETERS).then_some(parts)
    }

    /// How long a strand takes after its begin.
    fn work(&self, strand: &[usize]) -> u32 {
        let one = |&step: &usize| match &self.small[step] {
            Some(part) if strand.len() > 1 => FIRST + (part.blocks - 1) * AGAIN,
            Some(_) => FIRST,
            None => LARGE,
        };
        strand.iter().map(one).sum()
    }

    /// Counts anew when groups run.
    fn count(&mut self) {
        let length = |group: &Option<Group>| {
            let strands = group.iter().flat_map(|group| &group.strands);
            BEGIN + strands.map(|strand| self.work(strand)).max().unwrap_or(0)
        };
        let lengths = self.groups.iter().map(length).collect();
        let waits = self.groups.iter();
        let waits = waits.map(|group| group.as_ref().map(|group| &group.waits));
        self.times = Times::new(waits.collect(), lengths);
    }

    /// Lets maps of a block or two go on with what the one before them has made.
    fn join_in_turn(&mut self) {
        for step in 0..self.groups.len() {
            let Some(group) = &self.groups[step] else {
                continue;
            };
            let mut waits = group.waits.iter().rev().copied();
            if let Some(first) = waits.find(|&first| self.may_follow(first, step)) {
                let group = self.join(first, step);
                let more = group.strands.remove(1);
                group.strands[0].extend(more);
                self.count();
            }
        }
    }

    /// Whether a group may be done by the blocks of one that it waits for.
    fn may_follow(&self, first: usize, then: usize) -> bool {
        let Some(parts) = self.both(first, then) else {
            return false;
        };
        let [a, b] = [first, then].map(|at| self.group(at));
        let times = &self.times;
        let in_turn = a.strands.len() == 1 && parts.iter().all(|part| part.blocks <= IN_TURN);
        let mut others = b.waits.iter().filter(|&&wait| wait != first);
        if !in_turn || others.any(|&other| times.is_before(first, other)) {
            return false;
        }
        let waits = a.waits.union(&b.waits).filter(|&&wait| wait != first);
        let begin = waits.map(|&wait| times.done(wait)).max().unwrap_or(0);
        let work = self.work(&[&a.strands[0][..], &b.strands[0]].concat());
        let others = times.followers[first].iter().filter(|&&next| next != then);
        let due = others.map(|&next| times.due(next)).min();
        begin + BEGIN + work <= times.ends[then].min(due.unwrap_or(u32::MAX))
    }

    /// Lets small maps that do not wait for each other begin together: preferably with others of the same
    /// code, then with those that begin at about the same time.
    fn join_side_by_side(&mut self) {
        for step in 0..self.groups.len() {
            let may = (0..step).filter(|&other| self.may_accompany(other, step));
            let distance = |&other: &usize| {
                let begins = &self.times.begins;
                (
                    !self.alike(other, step),
                    begins[other].abs_diff(begins[step]),
                )
            };
            if let Some(other) = may.min_by_key(distance) {
                self.join(other, step);
                self.count();
            }
        }
    }

    fn may_accompany(&self, one: usize, other: usize) -> bool {
        let times = &self.times;
        if self.groups[one].is_none() || times.is_before(one, other) || times.is_before(other, one)
        {
            return false;
        }
        let begin = times.begins[one].max(times.begins[other]);
        let length = times.lengths[one].max(times.lengths[other]);
        begin + length <= times.ends[one].min(times.ends[other])
            && self.both(one, other).is_some()
            && (self.join == Join::Any || self.alike(one, other))
    }

    /// Whether a strand of one group has the code of one of the other.
    fn alike(&self, one: usize, other: usize) -> bool {
        let code = |strand: &[usize]| -> Vec<&str> {
            let parts = strand.iter().filter_map(|&step| self.small[step].as_ref());
            parts.map(|part| part.code).collect()
        };
        let [some, others] = [one, other].map(|at| &self.group(at).strands);
        let mut pairs = some.iter().flat_map(|a| others.iter().map(move |b| (a, b)));
        pairs.any(|(a, b)| code(a) == code(b))
    }

    /// Adds the strands of a group to an earlier one, and lets others wait for that one instead.
    fn join(&mut self, to: usize, from: usize) -> &mut Group {
        let taken = self.groups[from].take().expect("it has not joined another");
        for group in self.groups.iter_mut().flatten() {
            if group.waits.remove(&from) {
                group.waits.insert(to);
            }
        }
        let group = self.groups[to].as_mut().expect("it has not joined another");
        group.strands.extend(taken.strands);
        group.waits.extend(taken.waits);
        group.waits.remove(&to);
        group
    }

    /// The groups in order, their numbers those of the order, and without waits that others imply.
    fn end(mut self) -> Vec<Group> {
        let mut numbers = vec![0; self.groups.len()];
        let Times { order, .. } = &self.times;
        order
            .iter()
            .enumerate()
            .for_each(|(i, &at)| numbers[at] = i);
        let mut groups = Vec::with_capacity(order.len());
        for &at in order {
            let Group { strands, waits } = self.groups[at].take().expect("in the order once");
            let implied = |wait| waits.iter().any(|&other| self.times.is_before(wait, other));
            let needed = waits.iter().filter(|&&wait| !implied(wait));
            groups.push(Group {
                waits: needed.map(|&wait| numbers[wait]).collect(),
                strands,
            });
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small maps with that many blocks, those of more than two of other code; 0 for anything else.
    fn steps(blocks: &[u32]) -> Vec<Option<Small<'static>>> {
        let small = |&blocks: &u32| {
            (blocks > 0).then_some(Small {
                code: if blocks > 2 { "wide" } else { "map" },
                blocks,
                bytes: 64,
            })
        };
        blocks.iter().map(small).collect()
    }

    fn group(strands: &[&[usize]], waits: &[usize]) -> Group {
        Group {
            strands: strands.iter().map(|strand| strand.to_vec()).collect(),
            waits: waits.iter().copied().collect(),
        }
    }

    #[test]
    fn small_maps_begin_together_or_go_on() {
        // A product, two maps of it, a product of both; then two of one block in turn.
        let waits = [vec![], vec![0], vec![0], vec![2, 1], vec![3], vec![4]];
        let expected = [
            group(&[&[0]], &[]),
            group(&[&[1], &[2]], &[0]),
            group(&[&[3]], &[1]),
            group(&[&[4, 5]], &[2]),
        ];
        assert_eq!(
            merged(steps(&[0, 20, 1, 0, 1, 1]), &waits, Join::Any),
            expected
        );
        // Two blocks need another one's results: a launch of their own.
        let waits = [vec![], vec![0]];
        assert_eq!(merged(steps(&[3, 1]), &waits, Join::Any).len(), 2);
        // A map that may wait, for which a product must not.
        let waits = [vec![], vec![], vec![1], vec![2, 0], vec![1]];
        let expected = [
            group(&[&[1]], &[]),
            group(&[&[0], &[2]], &[0]),
            group(&[&[3]], &[1]),
            group(&[&[4]], &[0]),
        ];
        assert_eq!(
            merged(steps(&[20, 0, 20, 0, 0]), &waits, Join::Any),
            expected
        );
    }

    #[test]
    fn maps_of_the_same_code_begin_together() {
        let waits = [vec![], vec![0], vec![0], vec![0], vec![3], vec![0]];
        let expected = [
            group(&[&[0]], &[]),
            group(&[&[1], &[5]], &[0]),
            group(&[&[2], &[3]], &[0]),
            group(&[&[4]], &[2]),
        ];
        let small = steps(&[0, 20, 1, 1, 1, 20]);
        assert_eq!(merged(small, &waits, Join::Alike), expected);
    }

    #[test]
    fn long_programs_stay_as_they_are() {
        let groups = |count: usize| {
            let waits: Vec<Vec<usize>> = vec![vec![]; count];
            merged(steps(&vec![1; count]), &waits, Join::Alike).len()
        };
        assert!(groups(MOST_STEPS) < MOST_STEPS);
        assert_eq!(groups(MOST_STEPS + 1), MOST_STEPS + 1);
    }

    /// How long a program takes, as counted.
    fn length(blocks: &[u32], groups: Vec<Group>) -> u32 {
        let mut merging = Merging {
            groups: groups.into_iter().map(Some).collect(),
            times: Times::default(),
            small: steps(blocks),
            join: Join::Any,
        };
        merging.count();
        merging.times.ends.into_iter().max().unwrap()
    }

    /// Every program keeps its order, and takes no longer.
    #[test]
    fn groups_keep_what_waits_for_what() {
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        let (mut before, mut after) = (0, 0);
        for _ in 0..300 {
            let count = 1 + random(60) as usize;
            let blocks: Vec<u32> = (0..count)
                .map(|_| [0, 1, 1, 2, 9][random(5) as usize])
                .collect();
            let mut waits = Vec::new();
            for step in 0..count {
                let near = step.min(6) as u64;
                let some = (0..random(3)).filter(|_| near > 0);
                let own: BTreeSet<usize> = some.map(|_| step - 1 - random(near) as usize).collect();
                waits.push(own.into_iter().collect::<Vec<_>>());
            }
            let groups = merged(steps(&blocks), &waits, Join::Any);
            let alone = waits.iter().enumerate();
            let alone = alone
                .map(|(step, waits)| group(&[&[step]], waits))
                .collect();
            assert!(length(&blocks, groups.clone()) <= length(&blocks, alone));
            let mut homes = vec![(usize::MAX, 0, 0); count];
            for (g, group) in groups.iter().enumerate() {
                assert!(group.waits.iter().all(|&wait| wait < g));
                for (s, strand) in group.strands.iter().enumerate() {
                    for (i, &step) in strand.iter().enumerate() {
                        assert_eq!(homes[step].0, usize::MAX, "twice");
                        homes[step] = (g, s, i);
                        assert!(strand.len() == 1 || blocks[step] <= IN_TURN);
                    }
                }
            }
            let mut done: Vec<BTreeSet<usize>> = Vec::new();
            for group in &groups {
                let earlier = group.waits.iter().flat_map(|&wait| done[wait].clone());
                done.push(earlier.chain(group.waits.iter().copied()).collect());
            }
            for (step, waits) in waits.iter().enumerate() {
                let (g, s, i) = homes[step];
                for &wait in waits {
                    let (of, strand, at) = homes[wait];
                    assert!(done[g].contains(&of) || (of, strand) == (g, s) && at < i);
                }
            }
            before += count;
            after += groups.len();
        }
        assert!(after < before * 4 / 5, "{after} of {before}");
    }
}
