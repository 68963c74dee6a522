//! What is done, in order: two regions, faults in both and between them; the primary's region is lost and the other one
//! promoted; the old primary returns, is fenced, follows; roles are switched back as planned, under faults.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arca_client::{Request, Token};
use arca_harness::HarnessError;
use arca_harness::regions::orders;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Settings;
use super::crew::{Crew, keys, survey};
use super::kept::Kept;
use super::region::{Region, Status, has_all, is_primary, number, text};
use super::road::{Road, Ways};
use super::sampler::Sampler;
use crate::dice::Dice;
use crate::faults::FaultLog;
use crate::history::recorder::Recorder;
use crate::schedule::{Mixing, Planned, carry_out, plan};
use crate::workload::{Workload, told_by_reads};

type Result<T> = std::result::Result<T, HarnessError>;

/// Before the region is lost nothing is done to it for this long, so that it is known what it had acknowledged when.
const CALM: Duration = Duration::from_secs(3);
/// How long the old primary goes on alone before it is promoted away, if it still runs.
const ALONE: Duration = Duration::from_secs(2);
/// If there are faults while the west is promoted, they are begun this long.
const PROMOTED_UNDER: Duration = Duration::from_secs(4);
/// A planned switch begins this long after the faults at the latest, so that it meets some.
const SWITCH_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Writes of the tail that are asked for at once.
const TAIL_PAGE: u64 = 1_000;

/// How the primary's region is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nothing passes between the regions; it goes on alone.
    CutOff,
    /// All its nodes are killed at once.
    Killed,
    /// It is cut off for a while, and then killed: what it acknowledged meanwhile is on its disks only.
    CutOffAndKilled,
}

impl Loss {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::CutOff => "cut off, and goes on alone",
            Self::Killed => "killed",
            Self::CutOffAndKilled => "cut off, goes on alone, and is killed",
        }
    }
}

/// What was seen on the way. Times are the recorder's, nanoseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// How the region was lost.
    pub(super) loss: &'static str,
    /// By what the other one was promoted.
    pub(super) promoted_by: &'static str,
    /// First copy, under load.
    pub(super) copied: Duration,
    /// When the first thing was done that took the region away.
    pub(super) cut_ns: u64,
    /// When the order to promote was given, and when it was answered.
    pub(super) promoted_ns: (u64, u64),
    /// When the first write was acknowledged by the new primary.
    pub(super) written_ns: u64,
    /// Everything acknowledged before this is in the entries that the secondary said it had.
    pub(super) since_ns: u64,
    /// The same, by the seconds that the secondary said it was behind; none if it did not say.
    pub(super) since_by_seconds_ns: Option<u64>,
    /// Up to where it said it had everything: an entry of the old primary.
    pub(super) cursor: u64,
    /// Lag it showed, in seconds.
    pub(super) lag_seconds: Option<f64>,
    /// From letting the old primary hear of it to its status saying that it is fenced.
    pub(super) fenced_after: Duration,
    /// When that was seen.
    pub(super) fenced_ns: u64,
    /// The first and the last entry that was never shipped.
    pub(super) tail: (u64, u64),
    /// Paths in it.
    pub(super) tail_paths: BTreeSet<String>,
    /// Its rows.
    pub(super) tail_rows: usize,
    /// From update-primary to following again.
    pub(super) rejoined: Duration,
    /// From the order to demote to the first write on the other side.
    pub(super) switched: Duration,
    /// Keys that were read first in the new reign.
    pub(super) surveyed: BTreeSet<String>,
    /// What happened when.
    pub(super) steps: Vec<(u64, String)>,
}

/// See the module's header.
pub(super) struct Story<'a> {
    pub(super) settings: &'a Settings,
    pub(super) east: Region,
    pub(super) west: Region,
    pub(super) road: Road,
    pub(super) log: FaultLog,
    /// What clients of the east saw in its first reign.
    pub(super) old: Recorder,
    /// What clients saw from the promotion on, of whichever region.
    pub(super) new: Recorder,
    pub(super) dice: Dice,
    pub(super) facts: Facts,
    /// What is wrong and no history shows.
    pub(super) problems: Vec<String>,
    /// What was to be done to the regions.
    pub(super) planned: Vec<(&'static str, Planned)>,
    pub(super) kept: Kept,
}

impl Story<'_> {
    fn say(&mut self, step: impl Into<String>) {
        let (now, step) = (self.old.now(), step.into());
        eprintln!("{:>9.3} s  == {step}", super::seconds(now));
        self.facts.steps.push((now, step));
    }

    /// All of it. What clients saw is with the recorders.
    pub(super) async fn play(&mut self) -> Result<()> {
        let (old_work, new_work) = (told_by_reads(), told_by_reads());
        let first = self.crew(0, &self.east, &self.old.clone(), &old_work)?;
        self.follow().await?;
        self.suffer().await?;
        self.lose_the_east().await?;
        let second = self.crew(1, &self.west, &self.new.clone(), &new_work)?;
        self.reign_in_the_west().await?;
        self.bring_the_east_back().await?;
        self.problems.extend(first.end().await?);
        let third = self.crew(2, &self.east, &self.new.clone(), &new_work)?;
        self.switch_back().await?;
        self.problems.extend(second.end().await?);
        self.problems.extend(third.end().await?);
        self.look_at_the_end().await
    }

    fn crew(
        &self,
        turn: u64,
        region: &Region,
        recorder: &Recorder,
        work: &Arc<dyn Workload>,
    ) -> Result<Crew> {
        let dice = Dice::for_purpose(self.settings.seed, &format!("crew {turn}"));
        Crew::start(region, turn, self.settings.clients, recorder, work, dice)
    }

    /// The west becomes a copy of the east, under load.
    async fn follow(&mut self) -> Result<()> {
        self.say("clients work on the east; it becomes a primary, and the west its DR secondary");
        self.kept.make(&self.east.active().await?).await?;
        self.east.order("primary/enable", async || Ok(json!({})), is_primary).await?;
        let token = orders::secondary_token(&self.east.active().await?, "west").await?;
        orders::order(&self.west.active().await?, "secondary/enable", &json!({ "token": token })).await?;
        self.facts.copied =
            self.west.until("the copy", |status| text(status, "state") == "stream-wals").await?;
        self.west.cluster.adopt_keys(&self.east.cluster);
        let client = self.west.active().await?;
        match client.read("secret/data/harness/first").await {
            Err(err) if err.status().is_some_and(|status| status.as_u16() == 472) => Ok(()),
            other => Err(HarnessError(format!("a DR secondary answered: {other:?}"))),
        }
    }

    /// Any time up to `longest`.
    fn pause(&mut self, longest: Duration) -> Duration {
        self.dice.span(Duration::ZERO, longest)
    }

    /// A plan of faults for one region and one part of the story.
    fn plan(&mut self, region: &'static str, length: Duration) -> Vec<Planned> {
        let planned = plan(self.dice.number(), &self.settings.classes, length, Mixing::Apart);
        self.planned.extend(planned.iter().map(|strike| (region, strike.clone())));
        planned
    }

    /// Faults in both regions and between them.
    async fn suffer(&mut self) -> Result<()> {
        self.say("faults in both regions, and on the road between them");
        let length = self.settings.length / 2;
        let (in_east, in_west) = (self.plan("east", length), self.plan("west", length));
        let mut dice = self.dice.split();
        let (east, west) = (self.log.at("east"), self.log.at("west"));
        tokio::join!(
            carry_out(&self.east.cluster, &in_east, length, Mixing::Apart, &east),
            carry_out(&self.west.cluster, &in_west, length, Mixing::Apart, &west),
            self.road.trouble(length, &mut dice, &self.log),
        );
        self.east.restore().await?;
        self.west.restore().await?;
        let took = self.west.until("the west to have everything", has_all).await?;
        self.say(format!("all is healed, and the west had everything after {} ms", took.as_millis()));
        Ok(())
    }

    async fn lose_the_east(&mut self) -> Result<()> {
        let loss = [Loss::CutOff, Loss::Killed, Loss::CutOffAndKilled];
        let loss = self.dice.pick(&loss).copied().unwrap_or(Loss::CutOff);
        self.facts.loss = loss.words();
        let sampler = Sampler::start(&self.east, &self.old)?;
        tokio::time::sleep(CALM).await;
        self.say(format!("the east is lost: {}", loss.words()));
        self.facts.cut_ns = self.old.now();
        let is_reset = self.dice.chance(50);
        match loss {
            Loss::Killed => {
                self.east.kill().await?;
                self.road.block(Ways::Both, is_reset);
            }
            Loss::CutOff | Loss::CutOffAndKilled => {
                self.road.block(Ways::Both, is_reset);
                tokio::time::sleep(ALONE).await;
            }
        }
        if loss == Loss::CutOffAndKilled {
            self.east.kill().await?;
        }
        self.promote_the_west(&sampler).await?;
        // It runs again, and does not know: it takes writes that nobody else gets.
        self.east.restore().await
    }

    /// Reads what the west says it has.
    async fn note_lag(&mut self, sampler: &Sampler) -> Result<()> {
        let asked = self.old.now();
        let status = self.west.status().await?;
        self.facts.cursor = number(&status, "last_remote_wal").unwrap_or_default();
        self.facts.since_ns = sampler.complete_ns(self.facts.cursor);
        self.facts.lag_seconds = status.get("lag_seconds").and_then(Value::as_f64);
        let behind = self.facts.lag_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        self.facts.since_by_seconds_ns =
            behind.map(|behind| asked.saturating_sub(super::nanos(behind + super::HEARD_LATE)));
        Ok(())
    }

    async fn promote_the_west(&mut self, sampler: &Sampler) -> Result<()> {
        self.note_lag(sampler).await?;
        let by_shares = self.dice.chance(50);
        let token = if by_shares {
            self.facts.promoted_by = "an operation token made of key shares";
            let shares = self.east.cluster.shares().iter().map(Token::expose);
            orders::operation_token(&self.west.active().await?, shares).await?
        } else {
            self.facts.promoted_by = "a batch token made before";
            self.kept.batch_token.clone()
        };
        self.say(format!("the west is promoted by {}", self.facts.promoted_by));
        let strikes = if self.dice.chance(50) { self.plan("west", PROMOTED_UNDER) } else { Vec::new() };
        let pause = if strikes.is_empty() { Duration::ZERO } else { self.pause(PROMOTED_UNDER) };
        let log = self.log.at("west");
        // Nobody can say that the primary is well: both orders have to go through.
        let is_forced = self.dice.chance(50);
        let (recorder, west) = (self.old.clone(), &self.west);
        let promoting = async {
            tokio::time::sleep(pause).await;
            let began = recorder.now();
            let body = async || Ok(json!({ "dr_operation_token": token, "force": is_forced }));
            west.order("secondary/promote", body, is_primary).await?;
            let promoted = recorder.now();
            west.first_write().await?;
            Ok::<_, HarnessError>((began, promoted, recorder.now()))
        };
        let faults = carry_out(&west.cluster, &strikes, PROMOTED_UNDER, Mixing::Apart, &log);
        let (done, ()) = tokio::join!(promoting, faults);
        let (began, promoted, written) = done?;
        (self.facts.promoted_ns, self.facts.written_ns) = ((began, promoted), written);
        self.say(format!("the west took a write {} ms after the order", (written - began) / 1_000_000));
        let keys = keys(&self.old)?;
        survey(&self.west, &keys, &self.new).await?;
        self.facts.surveyed = keys.into_iter().map(|(_, key)| key).collect();
        self.check_kept(true).await;
        Ok(())
    }

    /// Says so if something is gone that was there before everything.
    async fn check_kept(&mut self, in_west: bool) {
        let region = if in_west { &self.west } else { &self.east };
        let seen = match region.active().await {
            Ok(client) => self.kept.check(&client).await,
            Err(err) => Err(err),
        };
        if let Err(err) = seen {
            self.problems.push(format!("in the {}: {err}", region.name));
        }
    }

    /// Clients have gone over; the old primary is not there, or takes writes that nobody else gets.
    async fn reign_in_the_west(&mut self) -> Result<()> {
        self.say("clients work on the west, and on the east, which does not know; faults in the west");
        let length = self.settings.length / 4;
        let strikes = self.plan("west", length);
        let log = self.log.at("west");
        carry_out(&self.west.cluster, &strikes, length, Mixing::Apart, &log).await;
        self.west.restore().await
    }

    async fn bring_the_east_back(&mut self) -> Result<()> {
        self.say("the road is open again: the east hears that it is over");
        let length = self.settings.length / 8;
        let (in_east, in_west) = (self.plan("east", length), self.plan("west", length));
        let (east, west) = (self.log.at("east"), self.log.at("west"));
        self.road.free(Ways::Both);
        let is_fenced = |status: &Status| text(status, "state") == "fenced";
        let (fenced, (), ()) = tokio::join!(
            async {
                let after = self.east.until("the fence", is_fenced).await?;
                Ok::<_, HarnessError>((after, self.old.now()))
            },
            carry_out(&self.east.cluster, &in_east, length, Mixing::Apart, &east),
            carry_out(&self.west.cluster, &in_west, length, Mixing::Apart, &west),
        );
        (self.facts.fenced_after, self.facts.fenced_ns) = fenced?;
        self.east.restore().await?;
        self.west.restore().await?;
        self.read_tail().await?;
        self.say("the east is demoted, and follows the west by comparison, under faults");
        let (in_east, in_west) = (self.plan("east", length), self.plan("west", length));
        let began = std::time::Instant::now();
        let operator = self.kept.token.clone();
        let following = async {
            let is_demoted = |status: &Status| text(status, "mode") == "secondary";
            self.east.order("primary/demote", async || Ok(json!({})), is_demoted).await?;
            self.east.follow(&self.west, "east", &operator).await?;
            self.east.until("the east to follow", has_all).await?;
            Ok::<_, HarnessError>(began.elapsed())
        };
        let (followed, (), ()) = tokio::join!(
            following,
            carry_out(&self.east.cluster, &in_east, length, Mixing::Apart, &east),
            carry_out(&self.west.cluster, &in_west, length, Mixing::Apart, &west),
        );
        self.facts.rejoined = followed?;
        self.say(format!("the east follows after {} ms", self.facts.rejoined.as_millis()));
        Ok(())
    }

    /// What the old primary had taken and nobody else got.
    async fn read_tail(&mut self) -> Result<()> {
        let client = self.east.active().await?;
        let mut after: Option<String> = None;
        loop {
            let request = Request::get("sys/replication/dr/tail").query("limit", TAIL_PAGE.to_string());
            let request = match &after {
                Some(after) => request.query("after", after.as_str()),
                None => request,
            };
            let read = client.read_request(request).await;
            let tail = read.map_err(|err| HarnessError::new("the tail of the east", err))?;
            let tail = tail.and_then(|tail| tail.data).unwrap_or_default();
            let entry = |name| number(&tail, name).unwrap_or_default();
            self.facts.tail = (entry("after_index"), entry("until_index"));
            let rows = tail.get("writes").and_then(Value::as_array);
            for row in rows.into_iter().flatten() {
                self.facts.tail_rows += 1;
                self.facts.tail_paths.extend(row.get("path").and_then(Value::as_str).map(str::to_owned));
            }
            after = tail.get("next").and_then(Value::as_str).map(str::to_owned);
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// The roles are switched as planned, under faults: nothing may be missing.
    async fn switch_back(&mut self) -> Result<()> {
        self.say("a planned switch: the west is demoted and the east promoted, under faults");
        let length = self.settings.length / 8;
        let (in_east, in_west) = (self.plan("east", length), self.plan("west", length));
        let (east_log, west_log) = (self.log.at("east"), self.log.at("west"));
        let operator = self.kept.token.clone();
        let heard = Mutex::new(BTreeSet::new());
        let pause = self.pause(length.min(SWITCH_PAUSE_MAX));
        let switching = async {
            tokio::time::sleep(pause).await;
            let began = std::time::Instant::now();
            let is_demoted = |status: &Status| text(status, "mode") == "secondary";
            let demoted = self.west.order("primary/demote", async || Ok(json!({})), is_demoted).await?;
            heard.lock().extend(demoted);
            let body = async || Ok(json!({ "dr_operation_token": operator, "planned": true }));
            let promoted = self.east.order("secondary/promote", body, is_primary).await?;
            heard.lock().extend(promoted);
            self.east.first_write().await?;
            let switched = began.elapsed();
            self.west.follow(&self.east, "west-again", &operator).await?;
            Ok::<_, HarnessError>(switched)
        };
        let (switched, (), ()) = tokio::join!(
            switching,
            carry_out(&self.east.cluster, &in_east, length, Mixing::Apart, &east_log),
            carry_out(&self.west.cluster, &in_west, length, Mixing::Apart, &west_log),
        );
        self.facts.switched = switched?;
        for refusal in heard.into_inner() {
            self.say(format!("said on the way: {refusal}"));
        }
        self.say(format!("the east took a write {} ms after the order", self.facts.switched.as_millis()));
        self.east.restore().await?;
        self.west.restore().await?;
        self.west.until("the west to follow again", has_all).await.map(drop)
    }

    /// Everything is whole: all keys once more, and whether the two states are the same.
    async fn look_at_the_end(&mut self) -> Result<()> {
        self.say("all is whole: every key is read once more, and the two states are compared");
        let keys = keys(&self.new)?;
        survey(&self.east, &keys, &self.new).await?;
        self.check_kept(false).await;
        self.west.until("the west to have everything", has_all).await?;
        let body = json!({ "dr_operation_token": self.kept.token });
        let checked = orders::order(&self.west.active().await?, "secondary/merkle-check", &body).await?;
        let report = checked.and_then(|checked| checked.field("merkle_corruption_report").cloned());
        let report = report.unwrap_or_default();
        if report.get("corrupted_root").and_then(Value::as_bool) != Some(false) {
            self.problems.push(format!("the two states differ at the end: {report}"));
        }
        Ok(())
    }
}
