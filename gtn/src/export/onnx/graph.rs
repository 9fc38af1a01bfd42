//! Builds an ONNX graph: nodes in order, and the constants that they read.

use super::proto::{
    Attribute, Dimension, Extent, FLOAT, Graph, INT64, Model, Node, Opset, Shape, Tensor,
    TensorType, Type, ValueInfo,
};
use prost::Message;
use tensor::Array;

/// The operator set of ONNX 1.12.
const OPSET: i64 = 17;
/// The version of the file format that goes with it.
const IR: i64 = 8;

/// Nodes and constants. Values are referred to by name: a kind and a number.
#[derive(Default)]
pub(super) struct Builder {
    nodes: Vec<Node>,
    constants: Vec<Tensor>,
}

/// An input or output of f32: its name, and the shape of one example, after the axis of examples.
pub(super) type Port<'a> = (&'a str, &'a [usize]);

impl Builder {
    /// A constant of f32.
    pub(super) fn constant(&mut self, array: &Array) -> String {
        let numbers = array.to_f64_vec().into_iter();
        let bytes = numbers.flat_map(|x| (x as f32).to_le_bytes()).collect();
        self.tensor(FLOAT, array.shape(), bytes)
    }

    /// A number as a constant.
    pub(super) fn number(&mut self, number: f64) -> String {
        self.tensor(FLOAT, &[], (number as f32).to_le_bytes().to_vec())
    }

    /// Whole numbers as a constant: shapes, places.
    pub(super) fn whole(&mut self, numbers: &[i64]) -> String {
        let bytes = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.tensor(INT64, &[numbers.len()], bytes)
    }

    fn tensor(&mut self, data_type: i32, shape: &[usize], raw_data: Vec<u8>) -> String {
        let name = format!("constant{}", self.constants.len());
        self.constants.push(Tensor {
            dims: shape.iter().map(|&n| n as i64).collect(),
            data_type,
            name: name.clone(),
            raw_data,
        });
        name
    }

    /// Adds an operation; gives the name of its result.
    pub(super) fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        let name = format!("{}{}", op.to_lowercase(), self.nodes.len());
        self.nodes.push(Node {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: op.to_owned(),
            attribute: attributes,
        });
        name
    }

    /// Adds a convolution or product: an operation that takes weights, and a bias if there is one.
    pub(super) fn weighted(
        &mut self,
        op: &str,
        x: &str,
        (weights, bias): (&Array, Option<&Array>),
        attributes: Vec<Attribute>,
    ) -> String {
        let weights = self.constant(weights);
        let bias = bias.map(|bias| self.constant(bias));
        let inputs = [x, &weights].into_iter().chain(bias.as_deref());
        self.node(op, &inputs.collect::<Vec<_>>(), attributes)
    }

    /// The bytes of a model with these outputs. Each comes with the name of the result that it gives.
    pub(super) fn model(
        mut self,
        (name, about): (&str, String),
        inputs: &[Port<'_>],
        outputs: &[(&str, Port<'_>)],
    ) -> Vec<u8> {
        self.nodes
            .extend(outputs.iter().map(|(result, output)| Node {
                input: vec![(*result).to_owned()],
                output: vec![output.0.to_owned()],
                name: output.0.to_owned(),
                op_type: "Identity".to_owned(),
                attribute: Vec::new(),
            }));
        let model = Model {
            ir_version: IR,
            producer_name: "gtn".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            doc_string: about,
            graph: Some(Graph {
                node: self.nodes,
                name: name.to_owned(),
                initializer: self.constants,
                input: inputs.iter().map(value).collect(),
                output: outputs.iter().map(|(_, output)| value(output)).collect(),
            }),
            opset_import: vec![Opset {
                domain: Some(String::new()),
                version: OPSET,
            }],
        };
        model.encode_to_vec()
    }
}

fn value((name, example): &Port<'_>) -> ValueInfo {
    let any = Extent::Any("n".to_owned());
    let extents = example.iter().map(|&n| Extent::Value(n as i64));
    let dimension = |extent| Dimension {
        extent: Some(extent),
    };
    let shape = Shape {
        dim: std::iter::once(any).chain(extents).map(dimension).collect(),
    };
    let tensor = TensorType {
        elem_type: FLOAT,
        shape: Some(shape),
    };
    ValueInfo {
        name: (*name).to_owned(),
        kind: Some(Type {
            tensor: Some(tensor),
        }),
    }
}

/// An attribute of a real number.
pub(super) fn float(name: &str, value: f64) -> Attribute {
    Attribute {
        f: Some(value as f32),
        kind: 1,
        ..named(name)
    }
}

/// An attribute of a whole number.
pub(super) fn int(name: &str, value: usize) -> Attribute {
    Attribute {
        i: Some(value as i64),
        kind: 2,
        ..named(name)
    }
}

/// An attribute of a word.
pub(super) fn word(name: &str, value: &str) -> Attribute {
    Attribute {
        s: Some(value.as_bytes().to_vec()),
        kind: 3,
        ..named(name)
    }
}

/// An attribute of several whole numbers.
pub(super) fn ints(name: &str, values: &[usize]) -> Attribute {
    Attribute {
        ints: values.iter().map(|&value| value as i64).collect(),
        kind: 7,
        ..named(name)
    }
}

fn named(name: &str) -> Attribute {
    Attribute {
        name: name.to_owned(),
        ..Attribute::default()
    }
}
