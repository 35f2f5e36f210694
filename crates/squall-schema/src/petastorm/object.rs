//! Objects in a pickle, whatever way it puts them together.
//!
//! Python 2 makes an object with `copy_reg._reconstructor`, later protocols call its class; either way it is a class, what
//! the class was given, and a state.

use super::pickle::{Id, Node, Object, Pickle};

/// An object without the ways of making it: class, what its constructor or its named tuple was given, its attributes.
pub(super) struct Made<'a> {
    pub(super) class: &'a str,
    pub(super) module: &'a str,
    pub(super) arguments: &'a [Id],
    pub(super) state: Option<Id>,
    pub(super) pairs: &'a [(Id, Id)],
}

/// The objects of a pickle.
#[derive(Clone, Copy)]
pub(super) struct Objects<'a>(pub(super) &'a Pickle);

impl<'a> Objects<'a> {
    pub(super) fn root(self) -> Id {
        self.0.root()
    }

    pub(super) fn node(self, id: Id) -> &'a Node {
        self.0.node(id)
    }

    /// A class, or an object of it.
    pub(super) fn made(self, id: Id) -> Option<Made<'a>> {
        let (class, object): (Id, Option<&'a Object>) = match self.0.node(id) {
            Node::Global(..) => (id, None),
            Node::Object(object) => (object.class, Some(object)),
            _ => return None,
        };
        let Node::Global(module, name) = self.0.node(class) else {
            return None;
        };
        let arguments = match object {
            Some(object) => self.sequence(object.arguments)?,
            None => &[],
        };
        let (state, pairs) = object.map_or((None, &[][..]), |object| (object.state, &object.pairs[..]));
        // Python 2: class, base class, and what the base class was given.
        if let ("copy_reg" | "copyreg", "_reconstructor", [class, _, base]) =
            (module.as_str(), name.as_str(), arguments)
        {
            let Node::Global(module, name) = self.0.node(*class) else {
                return None;
            };
            let arguments = match self.0.node(*base) {
                Node::None => &[],
                _ => self.sequence(*base)?,
            };
            return Some(Made {
                class: name,
                module,
                arguments,
                state,
                pairs,
            });
        }
        Some(Made {
            class: name,
            module,
            arguments,
            state,
            pairs,
        })
    }

    pub(super) fn attribute(self, state: Id, name: &str) -> Option<Id> {
        let Node::Dict(pairs) = self.0.node(state) else {
            return None;
        };
        let found = pairs.iter().find(|(key, _)| self.text(*key) == Some(name));
        found.map(|(_, value)| *value)
    }

    pub(super) fn sequence(self, id: Id) -> Option<&'a [Id]> {
        match self.0.node(id) {
            Node::List(items) | Node::Tuple(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn text(self, id: Id) -> Option<&'a str> {
        match self.0.node(id) {
            Node::Str(text) => Some(text),
            _ => None,
        }
    }
}
