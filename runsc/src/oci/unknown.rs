//! What is in a configuration that this runtime does not know. The
//! specification has it ignored, and logged.

use serde_json::Value;

use super::capability_number;

/// Takes capabilities out of a `process` object that no kernel has.
pub fn drop_capabilities(process: &mut Value, warnings: &mut Vec<String>) {
    let sets = process
        .get_mut("capabilities")
        .and_then(Value::as_object_mut);
    for (set, names) in sets.into_iter().flatten() {
        let Some(names) = names.as_array_mut() else {
            continue;
        };
        names.retain(|name| {
            let unknown = name
                .as_str()
                .is_some_and(|name| capability_number(name).is_none());
            if unknown {
                warnings.push(format!(
                    "process.capabilities.{set}: {} is not known and left out",
                    name.as_str().unwrap_or_default()
                ));
            }
            !unknown
        });
    }
}

/// Names the properties of `given` that are not in `known`, which has been
/// made of it.
pub fn name_properties(given: &Value, known: &Value, warnings: &mut Vec<String>) {
    walk("", given, known, warnings);
}

fn walk(path: &str, given: &Value, known: &Value, warnings: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                let path = match path {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                };
                match known.get(key) {
                    Some(known) => walk(&path, value, known, warnings),
                    None if is_nothing(value) => {}
                    None => warnings.push(format!("property {path} is not known and ignored")),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (given, known) in given.iter().zip(known) {
                walk(path, given, known, warnings);
            }
        }
        _ => {}
    }
}

/// Whether leaving a value out says the same.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_properties_are_named() {
        let given = json!({"a": {"b": 1, "new": 2, "none": null}, "list": [{"x": 1, "y": 1}]});
        let known = json!({"a": {"b": 1}, "list": [{"x": 1}]});
        let mut warnings = Vec::new();
        name_properties(&given, &known, &mut warnings);
        assert_eq!(
            warnings,
            [
                "property a.new is not known and ignored",
                "property list.y is not known and ignored"
            ]
        );
    }

    #[test]
    fn unknown_capabilities_are_left_out() {
        let mut process = json!({"capabilities": {"bounding": ["CAP_KILL", "CAP_NEW"]}});
        let mut warnings = Vec::new();
        drop_capabilities(&mut process, &mut warnings);
        assert_eq!(process, json!({"capabilities": {"bounding": ["CAP_KILL"]}}));
        assert!(warnings.iter().all(|warning| warning.contains("CAP_NEW")));
        assert_eq!(warnings.len(), 1);
    }
}
