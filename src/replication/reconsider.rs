//! A write whose coordinator was deposed, or that met versions which it had not seen, is not answered yet (rule 7 of the
//! causality rules). The coordinator takes a new term if it needs one, hears of the rows again, and looks at what became of
//! what it wrote:
//!
//! - nothing lives beside it that it did not know of: the reply stands, and the same delta is told again; unless it tells of
//!   what it replaced, and that may have been replaced and removed before;
//! - it only counted: nobody is in conflict with that, but the reply is counted again;
//! - something lives beside it: what it wrote is withdrawn, and the command evaluated again, in one draft.
//!
//! What a conditional command wrote and somebody replaced meanwhile cannot be judged any more: the outcome is unknown. Nor
//! can what a removal took away be given back: see [`Coordinator::judge_taken`].

use std::sync::Arc;

use super::Coordinator;
use super::telling::{Telling, Under};
use super::transaction;
use super::write::{Attempt, Seats, Writing};
use crate::base::id::Term;
use crate::causality::counter::run_of;
use crate::causality::{Dot, Payload, RowChange, Version};
use crate::commands::spec::Group;
use crate::commands::{Call, CommandError};
use crate::metrics;
use crate::model::{Delta, Draft, Fate, Fault, RowKey};
use crate::replica::Commit;
use crate::resp::Reply;

/// What to do with an attempt.
enum Judgement {
    /// Its reply is right.
    Stands,
    /// This is its reply.
    Replies(Reply),
    /// It is to be evaluated again.
    Again,
    /// Nobody can tell.
    Unknown,
}

impl Coordinator {
    /// Makes of an attempt that met doubts one that has met none yet. `tried` says how often that was done.
    pub(super) async fn reconsider(
        self: &Arc<Self>,
        writing: &Writing,
        attempt: &mut Attempt,
        tried: u32,
    ) -> Result<(), String> {
        let (region, deposed) = (writing.region, attempt.telling.deposed());
        let conflicts = attempt.telling.conflicts().to_vec();
        if deposed.is_some() {
            metrics::DEPOSALS.increment();
            // Two that take terms from each other must not keep step.
            self.step_back(tried).await;
        } else {
            metrics::CONFLICTS.increment();
        }
        let term = self.take_over(writing, deposed, &conflicts).await?;
        let seats = self.view.load().seats(region.partition);
        let fate =
            self.replica.fate(region, attempt.telling.delta(), self.env.now_ms()).map_err(|fault| fault.to_string())?;
        *attempt = match self.judge(writing, attempt, fate) {
            Judgement::Stands => self.told_again(&seats, attempt, term, None),
            Judgement::Replies(reply) => self.told_again(&seats, attempt, term, Some(reply)),
            Judgement::Again => self.evaluate_again(writing, &seats, attempt, term)?,
            Judgement::Unknown => return Err("it was replaced before it was acknowledged".into()),
        };
        Ok(())
    }

    fn judge(&self, writing: &Writing, attempt: &Attempt, fate: Fate) -> Judgement {
        let delta = attempt.telling.delta();
        let (conditional, strict) = (attempt.telling.is_conditional(), self.quorums.is_strict(writing.region.db));
        let went_on = delta.rows.iter().any(|(_, change)| !change.superseded.is_empty());
        let went_on_for_good = attempt.took_sums || delta.rows.iter().any(|(_, change)| removes(change));
        match fate {
            // A client's context says what a PUT replaces, whatever else is there: siblings are its answer, and whoever has
            // seen what it wrote must be able to name it.
            _ if names_its_context(writing) => Judgement::Stands,
            fate if transaction::is(writing.task.spec) => self.judge_transaction(writing, attempt, fate),
            _ if delta.only_runs() => self.count_again(delta).map_or(Judgement::Stands, Judgement::Replies),
            _ if went_on_for_good && conditional => self.judge_taken(writing, attempt, fate),
            // Who coordinated meanwhile may have replaced what it went on from, and removed that: of which nothing is left, and
            // the reply would tell of what was gone.
            Fate::Stands if conditional && went_on && writing.need.strict && attempt.telling.deposed().is_some() => {
                if writing.abandoned {
                    Judgement::Stands
                } else {
                    Judgement::Unknown
                }
            }
            Fate::Stands => Judgement::Stands,
            Fate::Replaced if writing.abandoned || !conditional || !writing.need.strict => Judgement::Stands,
            Fate::Replaced => Judgement::Unknown,
            // What it replaced may have been acknowledged by stand-ins of whom nobody else has heard: withdrawn with it, it
            // would be lost. So both stay, as siblings.
            Fate::Contested if conditional && went_on && !strict => match writing.need.strict {
                true => Judgement::Unknown,
                false => Judgement::Stands,
            },
            Fate::Contested => Judgement::Again,
        }
    }

    /// A transaction is done over again only where it began from nothing: taken back, what it replaced would be lost where
    /// the second time it does something else, and what it counted would be counted twice.
    fn judge_transaction(&self, writing: &Writing, attempt: &Attempt, fate: Fate) -> Judgement {
        let delta = attempt.telling.delta();
        let went_on = attempt.took_sums || delta.rows.iter().any(|(_, change)| !change.superseded.is_empty());
        let counts = delta.rows.iter().flat_map(|(_, change)| &change.new).any(|version| run_of(version).is_some());
        match fate {
            Fate::Stands if !counts => Judgement::Stands,
            Fate::Contested if !went_on && !counts => Judgement::Again,
            _ if writing.abandoned || !writing.need.strict => Judgement::Stands,
            _ => Judgement::Unknown,
        }
    }

    /// What was taken away is not there any more, and nothing brings it back: evaluated again, the command would not find it
    /// (the sum of a counter, what is to be renamed). Nor can anybody tell whether what is there now was written by somebody
    /// who had seen it gone (a lock that was free again) and must stay, or had been there before and must go as well. Where
    /// only owners count such a guess would be an exact answer that is wrong.
    fn judge_taken(&self, writing: &Writing, attempt: &Attempt, fate: Fate) -> Judgement {
        let delta = attempt.telling.delta();
        let only_removes = delta.rows.iter().all(|(_, change)| removes(change));
        let left = fate == Fate::Contested || self.has_left_something(delta);
        match () {
            () if writing.abandoned => Judgement::Stands,
            () if writing.need.strict => match left || fate == Fate::Replaced || attempt.telling.deposed().is_some() {
                true => Judgement::Unknown,
                false => Judgement::Stands,
            },
            // Increments elsewhere count as if they had come after it.
            () if left && only_removes && !attempt.took_sums => Judgement::Again,
            () => Judgement::Stands,
        }
    }

    /// Whether a removal did not know of something that is there.
    fn has_left_something(&self, delta: &Delta) -> bool {
        let now = self.env.now_ms();
        delta.rows.iter().filter(|(_, change)| removes(change)).any(|(row, change)| {
            let cell = self.replica.cell(delta.region, row);
            cell.is_ok_and(|cell| delta.conflicts(change, &cell, now))
        })
    }

    /// What an increment is to answer, now that others have become known: what the counter shows without this node's
    /// increments since. None if the counter is gone: then whoever took it away had seen the increment.
    fn count_again(&self, delta: &Delta) -> Option<Reply> {
        let [(row, change)] = delta.rows.as_slice() else { return None };
        let mine = change.new.iter().find(|version| matches!(version.payload, Payload::Run(_)))?;
        let (name, then) = run_of(mine)?;
        let cell = self.replica.cell(delta.region, row).ok()?;
        let mut runs = cell.versions().iter().filter_map(run_of);
        let now = runs.find(|(run, _)| *run == name).map(|(_, run)| run.sum)?;
        let key = RowKey::decode(row.clone()).ok()?.key;
        let shown = self.replica.view(delta.region, self.env.now_ms(), |view| view.text(&key)).ok()??;
        let shown = i128::from(crate::base::num::parse_i64(&shown)?);
        i64::try_from(shown - (now - then.sum)).ok().map(Reply::Int)
    }

    /// Tells the same again, under another term. What has become known of its rows meanwhile is nothing new to it: it was
    /// decided that both stay, and owners that hold both must not say "conflict" for ever.
    fn told_again(&self, seats: &Seats, attempt: &Attempt, term: Term, reply: Option<Reply>) -> Attempt {
        let Attempt { reply: former, last, took_sums, telling } = attempt;
        let (mut delta, conditional) = (telling.delta().clone(), telling.is_conditional());
        if conditional {
            self.keep_what_is_known(&mut delta);
        }
        let region = delta.region;
        let under = Under { term: Some(term), stand_ins_look: false };
        let mut telling = self.tell_as_seated(seats, delta, under, conditional);
        // It is committed here since long, or will be with what is committed now.
        telling.commit_here(self, self.seat_here(seats), self.replica.committer().last());
        self.doubt_if_deposed(region, term, &mut telling);
        Attempt { reply: reply.unwrap_or_else(|| former.clone()), last: *last, took_sums: *took_sums, telling }
    }

    /// Says of all that is in the rows of a delta, and not its own, that it was seen and left.
    fn keep_what_is_known(&self, delta: &mut Delta) {
        for (row, change) in &delta.rows {
            let Ok(cell) = self.replica.cell(delta.region, row) else { continue };
            let own = |dot: &Dot| change.new.iter().any(|version| version.dot == *dot);
            let known: Vec<Dot> = cell.dots().filter(|dot| !own(dot) && !delta.kept.contains(dot)).collect();
            delta.kept.extend(known);
        }
    }

    /// Withdraws what was written and evaluates the command anew, in one draft.
    fn evaluate_again(
        &self,
        writing: &Writing,
        seats: &Seats,
        attempt: &Attempt,
        term: Term,
    ) -> Result<Attempt, String> {
        let former = attempt.telling.delta();
        let call = Call { spec: writing.task.spec, args: &writing.task.args };
        let change = |draft: &mut Draft| (writing.command)(&call, draft);
        let under = Under { term: Some(term), stand_ins_look: false };
        let tell = |delta, conditional| self.tell_as_seated(seats, delta, under, conditional);
        let now = self.env.now_ms();
        let again: Result<_, CommandError> = if writing.abandoned {
            // Nobody waits for it: it must not begin to take effect now.
            Err(CommandError::from("ERR given up"))
        } else {
            self.replica.update_again(former.region, now, former, change, Some(tell))
        };
        let (reply, commit) = match again {
            Ok(done) => done,
            // It fails now: what is withdrawn goes all the same.
            Err(error) => self.withdraw(former, seats, term, error)?,
        };
        let again = self.attempted(writing.region, seats, term, reply, commit).1;
        let again = again.ok_or("nothing was left of it to withdraw")?;
        Ok(Attempt { took_sums: attempt.took_sums | again.took_sums, ..again })
    }

    fn withdraw(
        &self,
        former: &Delta,
        seats: &Seats,
        term: Term,
        error: CommandError,
    ) -> Result<(Reply, Option<Commit<Telling>>), String> {
        let under = Under { term: Some(term), stand_ins_look: false };
        let tell = |delta, conditional| self.tell_as_seated(seats, delta, under, conditional);
        let nothing = |_: &mut Draft| Ok::<(), Fault>(());
        let withdrawn = self.replica.update_again(former.region, self.env.now_ms(), former, nothing, Some(tell));
        let ((), commit) = withdrawn.map_err(|fault| fault.to_string())?;
        Ok((error.into_reply(), commit))
    }
}

/// Whether a change takes away what it found and writes nothing in its place.
fn removes(change: &RowChange) -> bool {
    let leaves_void = |version: &Version| matches!(version.payload, Payload::Void(_));
    !change.superseded.is_empty() && change.new.iter().all(leaves_void)
}

/// Whether a client's context says what the command replaces: that of DYNAMO PUT and DEL, not of the commands between nodes.
fn names_its_context(writing: &Writing) -> bool {
    writing.task.spec.group == Group::Dynamo && !writing.task.spec.name.starts_with('.')
}
