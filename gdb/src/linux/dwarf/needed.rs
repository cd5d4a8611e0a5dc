//! Which types one unit has to describe: those of its own, and of the kernel's what these
//! are made of. A structure of the kernel's that is only pointed to needs its name alone,
//! by which gdb finds it in the kernel's unit.

use crate::linux::btf::Btf;
use crate::linux::btf::types::{Number, Parameter, Type};

/// How much of a type is needed; more is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    Name,
    All,
}

/// By number.
pub(super) struct Needed(Vec<Option<Need>>);

impl Needed {
    pub fn of(btf: &Btf) -> Self {
        let own = btf.own();
        let mut needed = Self(vec![None; *own.end() as usize + 1]);
        if *own.start() == 1 {
            needed.0.fill(Some(Need::All));
            return needed;
        }
        // Each type is looked at twice at most, the second time for more of it.
        let mut open: Vec<_> = own.map(|number| (number, Need::All)).collect();
        while let Some((number, need)) = open.pop() {
            match needed.0.get_mut(number as usize) {
                Some(known) if *known < Some(need) => *known = Some(need),
                _ => continue,
            }
            if let Some(described) = btf.get(number) {
                needs(&described, need, |of, need| open.push((of, need)));
            }
        }
        needed
    }

    pub fn need(&self, number: Number) -> Option<Need> {
        *self.0.get(number as usize)?
    }
}

/// What a type needs of others.
fn needs(described: &Type<'_>, need: Need, mut add: impl FnMut(Number, Need)) {
    match described {
        Type::Composite(composite) if need == Need::All || composite.name.is_empty() => {
            for member in composite.members() {
                add(member.of, Need::All);
            }
        }
        Type::Array { element, .. } => add(*element, Need::All),
        Type::Pointer(of) => add(*of, Need::Name),
        Type::Typedef { of, .. } | Type::Tagged(of) => add(*of, need),
        Type::Const(of) | Type::Volatile(of) | Type::Restrict(of) => add(*of, need),
        Type::Prototype(prototype) => {
            add(prototype.result, Need::Name);
            for parameter in prototype.parameters() {
                if let Parameter::Named { of, .. } = parameter {
                    add(of, Need::Name);
                }
            }
        }
        Type::Function { prototype, .. } => add(*prototype, Need::All),
        Type::Variable { of, .. } => add(*of, Need::All),
        Type::Composite(_) | Type::Int(_) | Type::Float { .. } | Type::Enum(_) => {}
        Type::Forward { .. } | Type::Note => {}
    }
}
