//! `extends`: one definition laid over another.

use serde_json::Value;

/// Lays `over` on `base`. Objects merge key by key; lists whose elements all have a name merge by name, new names at the end; anything else
/// is replaced. `null` takes a key away.
pub(super) fn overlay(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.remove(&key);
                } else if let Some(present) = base.get_mut(&key) {
                    overlay(present, value);
                } else {
                    base.insert(key, value);
                }
            }
        }
        (Value::Array(base), Value::Array(over)) if named(base) && named(&over) => {
            for value in over {
                match base.iter_mut().find(|present| name(present) == name(&value)) {
                    Some(present) => overlay(present, value),
                    None => base.push(value),
                }
            }
        }
        (base, over) => *base = over,
    }
}

fn name(value: &Value) -> Option<&str> {
    value.get("name").or_else(|| value.get("method")).and_then(Value::as_str)
}

fn named(list: &[Value]) -> bool {
    list.iter().all(|value| name(value).is_some())
}
