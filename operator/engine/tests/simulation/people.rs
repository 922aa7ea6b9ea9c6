//! People at work in the systems: they make, edit, clear, refer, delete and merge, at moments of their own.

use crate::chance::{Dice, Trace, VirtualClock};
use crate::system::FIELDS;
use crate::world::{LABELS, World};
use fairlead_model::Clock;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Everybody who works in the systems.
pub(crate) struct People {
    world: Arc<World>,
    dice: Arc<Dice>,
    /// Whether what they enter was there before.
    again: Dice,
    trace: Arc<Trace>,
    clock: Arc<VirtualClock>,
    /// Values are told apart by a number.
    number: u64,
    /// Codes of what was deleted or merged away; nobody refers to it any more.
    gone: BTreeSet<String>,
    /// Those of them that were deleted, and where: there they may be entered again.
    deleted: Vec<(usize, String)>,
    /// How many records were deleted or merged away; one that was entered again may go twice.
    removed: u64,
}

impl People {
    pub(crate) fn new(world: Arc<World>, dice: Arc<Dice>, again: Dice, trace: Arc<Trace>, clock: Arc<VirtualClock>) -> Self {
        Self { world, dice, again, trace, clock, number: 100, gone: BTreeSet::new(), deleted: Vec::new(), removed: 0 }
    }

    /// They work until `end`.
    pub(crate) async fn work(mut self, end: Instant) {
        let busy = self.dice.of(1..=8);
        loop {
            let pause = Duration::from_millis(self.dice.of(100..=busy * 2000));
            if Instant::now() + pause >= end {
                return;
            }
            tokio::time::sleep(pause).await;
            self.act();
        }
    }

    fn act(&mut self) {
        let place = usize::try_from(self.dice.of(0..=self.world.sides.len() as u64 - 1)).unwrap();
        match self.dice.of(0..=99) {
            0..=17 => self.create(place),
            18..=25 => self.refer(),
            26..=31 => self.delete(place),
            32..=35 => self.merge(place),
            36..=50 => self.edit(place, false),
            _ => self.edit(place, true),
        }
    }

    fn fresh(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn live(&self, place: usize) -> Vec<(String, Map<String, Value>)> {
        self.world.systems[place].lock().unwrap().live().collect()
    }

    fn name(&self, place: usize) -> &'static str {
        self.world.sides[place].style.name
    }

    /// The stamp of a transaction that ends now: most begin now, some began a while ago.
    fn stamp(&self, place: usize) -> (i64, i64) {
        let now = self.clock.now().0;
        let lag = self.world.sides[place].style.lag;
        if self.dice.permille(150) {
            self.trace.reach("person commits late");
            return (now, now - i64::try_from(self.dice.of(500..=u64::try_from(lag - 9000).unwrap())).unwrap());
        }
        (now, now)
    }

    fn create(&mut self, place: usize) {
        // Where nothing is read, nobody would ever learn of it.
        if !self.world.sides[place].read {
            return;
        }
        let number = self.fresh();
        let mut values = Map::from_iter([
            ("Code".to_owned(), json!(format!("c{number}"))),
            ("Name".to_owned(), json!(format!("New {number}"))),
            ("Label".to_owned(), json!(self.dice.pick(&LABELS))),
            ("Active".to_owned(), json!(true)),
        ]);
        if self.dice.permille(500) {
            values.insert("Phone".into(), json!(format!("p{number}")));
        }
        let parents: Vec<String> = self.referable(place);
        if !parents.is_empty() && self.dice.permille(400) {
            values.insert("Parent".into(), json!(self.dice.pick(&parents)));
        }
        let live: Vec<Value> = self.live(place).into_iter().map(|(_, mut fields)| fields["Code"].take()).collect();
        let before = self.deleted.iter().filter(|(at, code)| *at == place && !live.contains(&json!(code)));
        let before: Vec<String> = before.map(|(_, code)| code.clone()).collect();
        if !before.is_empty() && self.again.permille(400) {
            // Once: two who enter it in two systems at once have made two of it.
            let code = self.again.pick(&before);
            self.deleted.retain(|(_, deleted)| deleted != code);
            values.insert("Code".into(), json!(code));
            self.trace.reach("person enters again what was deleted");
        }
        self.trace.reach("person creates");
        self.trace.event(format!("{}: create {}", self.name(place), json!(values)));
        let (now, stamp) = self.stamp(place);
        self.world.systems[place].lock().unwrap().create(values, now, stamp);
    }

    /// Ids of what may be referred to.
    fn referable(&self, place: usize) -> Vec<String> {
        let live = self.live(place).into_iter();
        live.filter(|(_, fields)| !self.gone.contains(fields["Code"].as_str().unwrap_or_default())).map(|(id, _)| id).collect()
    }

    fn edit(&mut self, place: usize, own: bool) {
        let fields: Vec<usize> = (1..4).filter(|field| (self.world.owners[*field] == place) == own).collect();
        let live = self.live(place);
        if fields.is_empty() || live.is_empty() {
            return;
        }
        let field = FIELDS[*self.dice.pick(&fields)];
        let (id, before) = self.dice.pick(&live).clone();
        let number = self.fresh();
        let clears = field == "Phone" && self.dice.permille(200);
        let value = match field {
            _ if clears => Value::Null,
            "Label" => json!(self.dice.pick(&LABELS)),
            "Phone" => json!(format!("p{number}")),
            _ => json!(format!("Name {number}")),
        };
        // Nobody enters what is there already.
        if before.get(field).unwrap_or(&Value::Null) == &value {
            return;
        }
        self.trace.reach(match (own, clears) {
            (_, true) => "person clears",
            (true, _) => "person edits what is theirs",
            (false, _) => "person edits what is not theirs",
        });
        self.trace.event(format!("{}: edit {id} {} {field}={value}", self.name(place), before["Code"]));
        let (now, stamp) = self.stamp(place);
        self.world.systems[place].lock().unwrap().edit(&id, Map::from_iter([(field.to_owned(), value)]), now, stamp);
    }

    /// The owner of parents gives a record another one; sometimes two refer to each other.
    fn refer(&mut self) {
        let place = self.world.owners[4];
        let (live, parents) = (self.live(place), self.referable(place));
        if live.is_empty() || parents.is_empty() {
            return;
        }
        let (id, before) = self.dice.pick(&live).clone();
        let parent = self.dice.pick(&parents).clone();
        let parent = if parent == id { Value::Null } else { json!(parent) };
        if before.get("Parent").unwrap_or(&Value::Null) == &parent {
            return;
        }
        self.trace.reach("person refers elsewhere");
        self.trace.event(format!("{}: edit {id} {} Parent={parent}", self.name(place), before["Code"]));
        let (now, stamp) = self.stamp(place);
        self.world.systems[place].lock().unwrap().edit(&id, Map::from_iter([("Parent".to_owned(), parent)]), now, stamp);
    }

    /// Whether some record refers to what has this code, anywhere.
    fn is_parent(&self, code: &str) -> bool {
        (0..self.world.sides.len()).any(|place| {
            let live: BTreeMap<_, _> = self.live(place).into_iter().collect();
            live.values().any(|fields| {
                let parent = fields.get("Parent").and_then(Value::as_str).and_then(|parent| live.get(parent));
                parent.is_some_and(|parent| parent["Code"] == json!(code))
            })
        })
    }

    fn delete(&mut self, place: usize) {
        if !self.world.sides[place].style.tells_deletions() || self.removed >= self.world.spares() {
            return;
        }
        let live: Vec<_> = self.live(place).into_iter().filter(|(_, fields)| !self.is_parent(fields["Code"].as_str().unwrap())).collect();
        if live.is_empty() {
            return;
        }
        let (id, fields) = self.dice.pick(&live).clone();
        let code = fields["Code"].as_str().unwrap().to_owned();
        let system = self.world.systems[place].lock().unwrap();
        let made_here = system.log().iter().any(|entry| {
            entry.key == id
                && entry.outcome == fairlead_simulators::history::Outcome::Created
                && entry.origin == fairlead_simulators::history::Origin::Person
        });
        drop(system);
        self.trace.reach(if made_here { "person deletes at home" } else { "person deletes elsewhere" });
        self.trace.event(format!("{}: delete {id} {code}", self.name(place)));
        self.gone.insert(code.clone());
        self.deleted.push((place, code));
        self.removed += 1;
        self.world.systems[place].lock().unwrap().delete(&id, None, self.clock.now().0);
    }

    fn merge(&mut self, place: usize) {
        let side = &self.world.sides[place];
        if !side.style.tells_deletions() || !side.read || self.removed >= self.world.spares() {
            return;
        }
        let live: Vec<_> =
            self.live(place).into_iter().filter(|(_, fields)| !self.gone.contains(fields["Code"].as_str().unwrap())).collect();
        if live.len() < 2 {
            return;
        }
        let (loser, fields) = self.dice.pick(&live).clone();
        let (survivor, _) = self.dice.pick(&live).clone();
        if loser == survivor {
            return;
        }
        self.trace.reach("person merges");
        self.trace.event(format!("{}: merge {loser} {} into {survivor}", self.name(place), fields["Code"]));
        self.gone.insert(fields["Code"].as_str().unwrap().to_owned());
        self.removed += 1;
        self.world.systems[place].lock().unwrap().delete(&loser, Some(&survivor), self.clock.now().0);
    }
}
