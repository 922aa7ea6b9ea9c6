//! A world drawn from a seed: which systems there are, what they are like, what is kept in step between them, and what they hold at first.

use crate::chance::Dice;
use crate::system::{FIELDS, Reads, Style, System, Writes};
use fairlead_contract::Contract;
use fairlead_engine::decide::guard;
use fairlead_model::hash::Digest;
use fairlead_model::unit::{
    CircuitBreaker, ConnectorUnit, ContractUnit, DeletionPolicy, Guard, InitialLoad, IntegrationUnit, Limits, MasterUnit, ObjectKey,
    OnDelete, OnForeignEdit, OnLeave, OnMerge, OwnershipRule, ParticipantUnit, ReadUnit, Retry, RevisionUnit, Sibling, Tie, Units,
    WriteUnit,
};
use fairlead_model::{ObjectRef, realm};
use fairlead_simulators::history::{Agreement, Form, Naming, Part, Shared};
use serde_json::{Map, Value, from_value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The systems' names, in their order.
const NAMES: [&str; 4] = ["crm", "erp", "mdm", "web"];
/// The canonical names of [`FIELDS`].
pub(crate) const CANONICAL: [&str; 5] = ["code", "name", "phone", "label", "parentId"];
/// The values of labels.
pub(crate) const LABELS: [&str; 3] = ["red", "green", "blue"];

/// A system's part in the Integration.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) style: Style,
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// Only what has this label is written here.
    pub(crate) only: Option<&'static str>,
    pub(crate) on_delete: OnDelete,
    pub(crate) on_merge: OnMerge,
    pub(crate) on_leave: OnLeave,
    pub(crate) on_foreign_edit: OnForeignEdit,
    every: Duration,
    rate: Option<u32>,
    concurrency: u32,
}

/// A world.
pub(crate) struct World {
    pub(crate) sides: Vec<Side>,
    pub(crate) systems: Vec<Mutex<System>>,
    /// Per field of [`FIELDS`], the place of its owner.
    pub(crate) owners: Vec<usize>,
    /// The systems take part in two Integrations that feed one golden record: the second one begins at this place.
    split: Option<usize>,
    guard: Guard,
    schema: Arc<Value>,
    before: Vec<Vec<fairlead_simulators::core::value::Value>>,
    retry: Retry,
}

impl World {
    /// The world of these dice, at `now`.
    pub(crate) fn draw(dice: &Dice, masters: &Dice, now: i64) -> Self {
        let count = usize::try_from(*dice.pick(&[2, 2, 2, 3, 3, 4])).unwrap();
        let mut sides: Vec<Side> = NAMES[..count].iter().map(|name| side(dice, name)).collect();
        // Somebody is read, and somebody else is written.
        sides[0].read = true;
        sides[1].write = true;
        let readers: Vec<usize> = (0..count).filter(|place| sides[*place].read).collect();
        let mut owners: Vec<usize> = FIELDS.iter().map(|_| *dice.pick(&readers)).collect();
        // Codes tell who is who, and are never edited.
        owners[0] = readers[0];
        // It must hold nothing: people remove no more than it takes no notice of ([`Self::spares`]).
        let guarded = dice.permille(60) && sides.iter().any(|side| side.style.tells_deletions() && side.read);
        let guard = Guard { max_delete_percent: guarded.then_some(20), ..Guard::default() };
        let retry = Retry {
            attempts: u32::try_from(dice.of(4..=12)).unwrap(),
            initial: Duration::from_millis(500),
            max: Duration::from_secs(dice.of(5..=20)),
        };
        let split = masters.permille(350).then(|| usize::try_from(masters.of(1..=count as u64 - 1)).unwrap());
        Self { split, ..Self::of(sides, owners, guard, retry) }.fill(dice, now)
    }

    /// One system that is read and owns everything, and three that are written.
    pub(crate) fn three_targets() -> Self {
        let style = |name| Style {
            name,
            reads: Reads::Listed,
            writes: Writes::Batch(50),
            keyed: true,
            answers: false,
            normalises: false,
            page: 100,
            lag: 15_000,
            visible_after: 0,
            stale_for: 0,
            resolution: 1,
            dated: false,
        };
        let side = |name| Side {
            style: style(name),
            read: name == NAMES[0],
            write: name != NAMES[0],
            only: None,
            on_delete: OnDelete::Keep,
            on_merge: OnMerge::Keep,
            on_leave: OnLeave::Keep,
            on_foreign_edit: OnForeignEdit::Restore,
            every: Duration::from_secs(2),
            rate: None,
            concurrency: 4,
        };
        // Few attempts: an outage must not use them up.
        let retry = Retry { attempts: 3, initial: Duration::from_millis(500), max: Duration::from_secs(20) };
        let mut world = Self::of(NAMES.map(side).into(), FIELDS.map(|_| 0).into(), Guard::default(), retry);
        world.note_before();
        world
    }

    fn of(sides: Vec<Side>, owners: Vec<usize>, guard: Guard, retry: Retry) -> Self {
        let systems = sides.iter().map(|side| Mutex::new(System::new(side.style.clone()))).collect();
        Self { sides, owners, systems, split: None, guard, retry, schema: Arc::new(schema()), before: Vec::new() }
    }

    /// What the systems hold at first: some of it the same things, with values that differ.
    fn fill(mut self, dice: &Dice, now: i64) -> Self {
        let things = dice.of(2..=9);
        let mut ids: Vec<BTreeMap<u64, String>> = vec![BTreeMap::new(); self.systems.len()];
        for number in 0..things {
            let home = usize::try_from(dice.of(0..=self.systems.len() as u64 - 1)).unwrap();
            for (place, system) in self.systems.iter().enumerate() {
                if place != home && !dice.permille(350) {
                    continue;
                }
                let mut values = Map::from_iter([
                    ("Code".to_owned(), json!(format!("c{number}"))),
                    ("Name".to_owned(), json!(format!("Thing {number} of {}", self.sides[place].style.name))),
                    ("Label".to_owned(), json!(dice.pick(&LABELS))),
                    ("Active".to_owned(), json!(true)),
                ]);
                if dice.permille(700) {
                    values.insert("Phone".into(), json!(format!("p{number}{place}")));
                }
                let parents: Vec<&String> = ids[place].values().collect();
                if !parents.is_empty() && dice.permille(300) {
                    values.insert("Parent".into(), json!(dice.pick(&parents)));
                }
                let stamp = now - 86_400_000 + i64::try_from(number).unwrap() * 1000;
                ids[place].insert(number, system.lock().unwrap().seed(values, stamp));
            }
        }
        self.note_before();
        self
    }

    fn note_before(&mut self) {
        self.before = self.systems.iter().map(|system| system.lock().unwrap().records()).collect();
    }

    /// What the systems said of themselves before anything happened.
    pub(crate) fn before(&self, place: usize) -> &[fairlead_simulators::core::value::Value] {
        &self.before[place]
    }

    /// The fields that the system at a place owns.
    pub(crate) fn owned(&self, place: usize) -> Vec<&'static str> {
        FIELDS.into_iter().zip(&self.owners).filter(|(_, owner)| **owner == place).map(|(field, _)| field).collect()
    }

    /// What is agreed on.
    pub(crate) fn agreement(&self) -> Agreement {
        let naming = self.sides.iter().map(|side| Naming {
            system: side.style.name,
            entity: "Thing",
            id: "Id",
            key: "Key",
            part: Part {
                read: side.read,
                written: side.write,
                keeps: side.on_foreign_edit == OnForeignEdit::Keep,
                tells_deletions: side.style.tells_deletions(),
                deletes: side.write && side.on_delete == OnDelete::Delete && side.only.is_none(),
                only: side.only.map(|label| ("label", label)),
            },
        });
        let fields = CANONICAL.iter().zip(FIELDS).zip(&self.owners).map(|((name, native), owner)| Shared {
            name,
            native: vec![native; self.sides.len()],
            owner: *owner,
            form: match *name {
                "phone" => Form::Caseless,
                "parentId" => Form::Reference,
                _ => Form::Text,
            },
        });
        Agreement { naming: naming.collect(), fields: fields.collect(), identity: vec!["code"] }
    }

    /// So many records may be deleted or merged away before the guard could hold an Integration, which nobody is there to confirm.
    pub(crate) fn spares(&self) -> u64 {
        if self.guard.max_delete_percent.is_some() { guard::FLOOR } else { u64::MAX }
    }

    /// Whether several Integrations feed one golden record.
    pub(crate) fn is_golden(&self) -> bool {
        self.split.is_some()
    }

    /// The realm of the records.
    pub(crate) fn realm(&self) -> String {
        if self.is_golden() { realm::of_contract(&ObjectRef::new("sim", "thing")) } else { "sim/things".to_owned() }
    }

    /// The Integrations, each with the places of its participants.
    fn integrations(&self) -> Vec<(ObjectRef, std::ops::Range<usize>)> {
        let split = self.split.unwrap_or(self.sides.len());
        let all = [("things", 0..split), ("others", split..self.sides.len())];
        all.into_iter().filter(|(_, places)| !places.is_empty()).map(|(name, places)| (ObjectRef::new("sim", name), places)).collect()
    }

    /// How the participant at a place is called in the realm.
    pub(crate) fn participant(&self, place: usize) -> String {
        let name = self.sides[place].style.name;
        let integration = self.integrations().into_iter().find(|(_, places)| places.contains(&place)).unwrap().0;
        if self.is_golden() { realm::full_name(&integration, name) } else { name.to_owned() }
    }

    /// What runs. `resync` is what a person last wrote into the resources.
    pub(crate) fn units(&self, resync: Option<&str>) -> Units {
        let fields = Contract::compile(&self.schema).unwrap().fields().clone();
        let rule = |field: &str, owner: usize| OwnershipRule { fields: vec![field.into()], role: self.sides[owner].style.name.into() };
        let sibling = |place: usize| Sibling {
            name: self.participant(place),
            role: self.sides[place].style.name.into(),
            reads: self.sides[place].read,
            writes: self.sides[place].write,
            load: InitialLoad::MatchOrCreate,
        };
        let unit = |(object, places): (ObjectRef, std::ops::Range<usize>)| IntegrationUnit {
            object,
            generation: 1,
            digest: Digest::default(),
            entity: "thing".into(),
            contract: ContractUnit { object: ObjectRef::new("sim", "thing"), schema: Arc::clone(&self.schema), fields: fields.clone() },
            master: self
                .is_golden()
                .then(|| MasterUnit { siblings: (0..self.sides.len()).filter(|place| !places.contains(place)).map(sibling).collect() }),
            participants: places.map(|place| Arc::new(self.sides[place].participant(self.participant(place)))).collect(),
            initial_load: InitialLoad::MatchOrCreate,
            matching: vec![vec!["code".parse().unwrap()]],
            indexed: Vec::new(),
            ownership: CANONICAL.iter().zip(&self.owners).map(|(field, owner)| rule(field, *owner)).collect(),
            tie: Tie::Home,
            guard: self.guard.clone(),
            resync: resync.map(str::to_owned),
            reconcile: None,
            lookups: BTreeMap::new(),
            retry: self.retry.clone(),
            keep_letters: Duration::from_secs(720 * 3600),
            revision: RevisionUnit::default(),
            rollout: None,
            paused: false,
            deletion_policy: DeletionPolicy::Retain,
        };
        let connectors = self
            .sides
            .iter()
            .enumerate()
            .map(|(place, side)| (ObjectKey(format!("sim/{}", side.style.name)), Arc::new(side.connector(place))));
        Units {
            connectors: connectors.collect(),
            integrations: self.integrations().into_iter().map(|each| (ObjectKey::from(&each.0), Arc::new(unit(each).sealed()))).collect(),
            ..Units::default()
        }
    }

    /// In one line, for the trace.
    pub(crate) fn told(&self) -> String {
        let sides = self.sides.iter().map(|side| {
            let Side { style, read, write, only, on_delete, on_merge, on_leave, on_foreign_edit, .. } = side;
            format!("\n  read={read} write={write} only={only:?} delete={on_delete:?} merge={on_merge:?} leave={on_leave:?} foreign={on_foreign_edit:?} {style:?}")
        });
        let owners: Vec<_> =
            FIELDS.iter().zip(&self.owners).map(|(field, owner)| format!("{field}:{}", self.sides[*owner].style.name)).collect();
        format!("split {:?} owners {} {:?}{}", self.split, owners.join(" "), self.retry, sides.collect::<String>())
    }
}

/// The host of the system at a place.
pub(crate) fn host(place: usize) -> String {
    format!("10.0.0.{}", place + 1)
}

fn side(dice: &Dice, name: &'static str) -> Side {
    let reads = if dice.permille(500) { Reads::Listed } else { Reads::Queried };
    let writes = match dice.of(0..=2) {
        0 => Writes::Single,
        1 => Writes::Batch(usize::try_from(dice.of(2..=5)).unwrap()),
        _ => Writes::Collections(usize::try_from(dice.of(2..=5)).unwrap()),
    };
    let (read, write) = *dice.pick(&[(true, true), (true, true), (true, true), (true, false), (false, true)]);
    let answers = dice.permille(400);
    let style = Style {
        name,
        reads,
        writes,
        keyed: dice.permille(650),
        answers,
        normalises: dice.permille(300),
        page: usize::try_from(dice.of(2..=6)).unwrap(),
        lag: i64::try_from(dice.of(15..=40)).unwrap() * 1000,
        visible_after: dice.pick(&[0i64, 0, 2, 4]) * 1000,
        stale_for: dice.pick(&[0i64, 0, 3, 6]) * 1000,
        resolution: *dice.pick(&[1, 1, 1000]),
        dated: dice.permille(500),
    };
    Side {
        style,
        read,
        write,
        only: dice.permille(200).then(|| *dice.pick(&LABELS)),
        on_delete: *dice.pick(&[OnDelete::Delete, OnDelete::Delete, OnDelete::Archive, OnDelete::Keep]),
        on_merge: *dice.pick(&[OnMerge::Keep, OnMerge::Archive]),
        on_leave: *dice.pick(&[OnLeave::Keep, OnLeave::Archive]),
        on_foreign_edit: *dice.pick(&[OnForeignEdit::Restore, OnForeignEdit::Restore, OnForeignEdit::Keep]),
        every: Duration::from_millis(dice.of(2000..=12_000)),
        rate: dice.permille(200).then(|| u32::try_from(dice.of(2..=10)).unwrap()),
        concurrency: u32::try_from(dice.of(1..=4)).unwrap(),
    }
}

impl Side {
    fn connector(&self, place: usize) -> ConnectorUnit {
        ConnectorUnit {
            object: ObjectRef::new("sim", self.style.name),
            generation: 1,
            digest: Digest::of(&json!(self.style.name)),
            definition: self.style.definition().text().clone(),
            system: self.style.name.into(),
            version: String::new(),
            endpoint: format!("http://{}", host(place)),
            parameters: BTreeMap::new(),
            auth_method: "ClientCredentials".into(),
            secret: ObjectRef::new("sim", "key"),
            limits: Limits {
                requests_per_second: self.rate,
                concurrency: self.concurrency,
                // More than any run has, but counted, and the count is kept through every death.
                daily_requests: Some(1_000_000),
                interactive_reserve_percent: 20,
            },
            circuit_breaker: CircuitBreaker { failures: 5, within: Duration::from_secs(30), open_for: Duration::from_secs(10) },
            probe_every: Duration::from_secs(60),
            ca_pem: None,
        }
    }

    fn participant(&self, name: String) -> ParticipantUnit {
        let rows: Vec<Value> = CANONICAL
            .iter()
            .zip(FIELDS)
            .map(|(canonical, native)| match native {
                "Parent" => json!({"canonical": canonical, "native": native, "reference": {"entity": "thing", "on_cycle": "Complete"}}),
                _ => json!({"canonical": canonical, "native": native}),
            })
            .collect();
        ParticipantUnit {
            name,
            role: self.style.name.into(),
            connector: ObjectRef::new("sim", self.style.name),
            entity: "Thing".into(),
            native: Arc::clone(self.style.definition().entity("Thing").unwrap().native_schema()),
            read: self.read.then_some(ReadUnit { every: self.every }),
            write: self.write.then(|| WriteUnit {
                key: self.style.keyed.then(|| "Key".into()),
                when: self.only.map(|label| format!(".record.label == \"{label}\"")),
                on_delete: self.on_delete,
                on_merge: self.on_merge,
                on_leave: self.on_leave,
                on_foreign_edit: self.on_foreign_edit,
            }),
            rows: from_value(json!(rows)).unwrap(),
        }
    }
}

fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": false,
        "properties": {
            "code": {"type": "string"}, "name": {"type": "string"}, "phone": {"type": "string"}, "label": {"type": "string"},
            "parentId": {"type": "string"},
        },
    })
}
