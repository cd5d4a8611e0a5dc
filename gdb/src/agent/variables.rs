//! Trace state variables: numbers that expressions read and write while the guest
//! runs on, `tvariable` in gdb (gdb manual, "Trace State Variables").

use std::collections::BTreeMap;

use crate::packet::{self, Malformed};

/// Most variables.
const MAX_VARIABLES: usize = 1024;

/// Most bytes of a name.
const MAX_NAME: usize = 256;

/// gdb's number for a variable, as wide as an expression's operand.
pub(crate) type Number = u16;

/// The packet that defines a variable, from behind `QTDV:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VariableDefinition {
    pub number: Number,
    pub initial: i64,
    pub name: String,
}

/// The variable cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VariableError {
    #[error("gdb's packet that defines a trace state variable is malformed")]
    Malformed,
    #[error("no trace state variable is built in here")]
    BuiltIn,
    #[error("there are too many trace state variables: at most {MAX_VARIABLES}")]
    TooMany,
}

impl From<Malformed> for VariableError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl VariableDefinition {
    /// Parses NUMBER `:` INITIAL VALUE `:` BUILT IN `:` NAME.
    ///
    /// # Errors
    /// It is malformed, or names a variable that the stub should have.
    pub fn parse(packet: &str) -> Result<Self, VariableError> {
        let mut fields = packet.splitn(4, ':');
        let number = Number::try_from(packet::hex(fields.next())?);
        let initial = packet::hex(fields.next())?.cast_signed();
        if packet::hex(fields.next())? != 0 {
            return Err(VariableError::BuiltIn);
        }
        let name = packet::bytes(fields.next().unwrap_or_default())?;
        let name = String::from_utf8(name).ok();
        Ok(Self {
            number: number.map_err(|_| VariableError::Malformed)?,
            initial,
            name: name
                .filter(|name| (1..=MAX_NAME).contains(&name.len()))
                .ok_or(VariableError::Malformed)?,
        })
    }
}

#[derive(Debug)]
struct Variable {
    name: String,
    initial: i64,
    value: i64,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Variables(BTreeMap<Number, Variable>);

impl Variables {
    /// Takes a variable in, in place of one with its number.
    ///
    /// # Errors
    /// There are too many.
    pub fn define(&mut self, definition: VariableDefinition) -> Result<(), VariableError> {
        let VariableDefinition {
            number,
            initial,
            name,
        } = definition;
        if self.0.len() == MAX_VARIABLES && !self.0.contains_key(&number) {
            return Err(VariableError::TooMany);
        }
        let variable = Variable {
            name,
            initial,
            value: initial,
        };
        self.0.insert(number, variable);
        Ok(())
    }

    /// Gives each its initial value.
    pub fn start(&mut self) {
        for variable in self.0.values_mut() {
            variable.value = variable.initial;
        }
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn get(&self, number: Number) -> Option<i64> {
        Some(self.0.get(&number)?.value)
    }

    /// Sets it, if there is such a variable.
    pub fn set(&mut self, number: Number, value: i64) -> Option<()> {
        self.0.get_mut(&number)?.value = value;
        Some(())
    }

    /// Each as gdb reads it back: NUMBER `:` INITIAL VALUE `:` BUILT IN `:` NAME.
    pub fn described(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(number, variable)| {
            let name = packet::encoded(variable.name.as_bytes());
            format!("{number:x}:{:x}:0:{name}", variable.initial)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn define(variables: &mut Variables, packet: &str) -> Result<(), VariableError> {
        VariableDefinition::parse(packet).and_then(|definition| variables.define(definition))
    }

    #[test]
    fn a_variable_starts_with_its_initial_value_and_is_given_back() {
        let mut variables = Variables::default();
        assert_eq!(define(&mut variables, "2:fffffffffffffffe:0:6162"), Ok(()));
        assert_eq!(define(&mut variables, "1:5:0:63"), Ok(()));
        assert_eq!(variables.get(2), Some(-2));
        assert_eq!(variables.set(2, 9), Some(()));
        assert_eq!(variables.get(2), Some(9));
        assert_eq!((variables.get(3), variables.set(3, 9)), (None, None));
        let described: Vec<_> = variables.described().collect();
        assert_eq!(described, ["1:5:0:63", "2:fffffffffffffffe:0:6162"]);
        variables.start();
        assert_eq!(variables.get(2), Some(-2));
        assert_eq!(define(&mut variables, "2:7:0:6162"), Ok(()), "again");
        assert_eq!(variables.get(2), Some(7));
    }

    #[test]
    fn nonsense_and_what_is_not_there_are_refused() {
        for packet in [
            "",
            "1",
            "1:2",
            "1:2:0",
            "1:2:0:",
            "1:2:0:6",
            "1:2:0:zz",
            "1:2:0:ff",
            "1:2:0:é1",
            "10000:2:0:61",
            "1:11112222333344445:0:61",
        ] {
            let refused = VariableDefinition::parse(packet);
            assert_eq!(refused, Err(VariableError::Malformed), "{packet}");
        }
        let long = format!("1:0:0:{}", "61".repeat(MAX_NAME + 1));
        let refused = VariableDefinition::parse(&long);
        assert_eq!(refused, Err(VariableError::Malformed));
        let refused = VariableDefinition::parse("1:0:1:74");
        assert_eq!(refused, Err(VariableError::BuiltIn));
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let mut variables = Variables::default();
        for number in 0..MAX_VARIABLES {
            assert_eq!(
                define(&mut variables, &format!("{number:x}:0:0:61")),
                Ok(())
            );
        }
        let refused = define(&mut variables, "ffff:0:0:61");
        assert_eq!(refused, Err(VariableError::TooMany));
        assert_eq!(define(&mut variables, "0:1:0:61"), Ok(()), "not a new one");
    }
}
