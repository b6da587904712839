//! The formats of lists: `json`, or a text with `{{.Field}}` in it.

use serde_json::Value;

/// How an entry of a list is to be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Template {
    /// As JSON.
    Json,
    /// As these parts, one after the other.
    Parts(Vec<Part>),
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// This text.
    Text(String),
    /// The value of a field, of a field of that, and so on.
    Field(Vec<String>),
}

impl Template {
    /// Reads a format.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "json" || text == "{{json .}}" {
            return Ok(Self::Json);
        }
        let mut parts = Vec::new();
        // As docker's, it may be written where a shell makes no tab or line end of it.
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut rest = text.as_str();
        while let Some((before, behind)) = rest.split_once("{{") {
            let (inside, after) = behind
                .split_once("}}")
                .ok_or_else(|| format!("`{{{{{behind}` has no }}}} behind it"))?;
            let path = inside.trim().strip_prefix('.').filter(|path| !path.is_empty());
            let path = path.ok_or_else(|| format!("`{{{{{inside}}}}}` is no field: write {{{{.Name}}}}, or json"))?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Field(path.split('.').map(str::to_owned).collect()));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self::Parts(parts))
    }

    /// The line for this value; an error names the field that it does not have.
    pub(crate) fn line(&self, value: &Value) -> Result<String, String> {
        let Self::Parts(parts) = self else {
            return Ok(value.to_string());
        };
        let mut line = String::new();
        for part in parts {
            match part {
                Part::Text(text) => line += text,
                Part::Field(path) => line += &field(value, path)?,
            }
        }
        Ok(line)
    }
}

fn field(value: &Value, path: &[String]) -> Result<String, String> {
    let mut at = value;
    for name in path {
        at = at.get(name).ok_or_else(|| {
            let names = at
                .as_object()
                .map(|fields| fields.keys().cloned().collect::<Vec<_>>().join(", "));
            let names = names.map_or_else(String::new, |names| format!(": there are {names}"));
            format!("there is no field `{}`{names}", path.join("."))
        })?;
    }
    Ok(at.as_str().map_or_else(|| at.to_string(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_put_into_the_text() {
        let value = json!({"ID": "12", "State": {"Pid": 7}});
        let line = |text: &str| Template::parse(text).unwrap().line(&value).unwrap();
        assert_eq!(line("{{.ID}}\\t{{ .State.Pid }}!"), "12\t7!");
        assert_eq!(line("plain"), "plain");
        assert_eq!(line("json"), value.to_string());
    }

    #[test]
    fn what_is_no_field_is_named() {
        for (text, says) in [
            ("{{.ID", "no }} behind"),
            ("{{ID}}", "is no field"),
            ("{{.}}", "is no field"),
        ] {
            assert!(Template::parse(text).unwrap_err().contains(says), "{text}");
        }
        let error = Template::parse("{{.Nmae}}").unwrap().line(&json!({"Name": 1}));
        assert_eq!(error.unwrap_err(), "there is no field `Nmae`: there are Name");
    }
}
