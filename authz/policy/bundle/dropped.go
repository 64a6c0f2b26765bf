package bundle

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// ours is the name below which the server reads data. There, what would be dropped in silence is a fault: half of a route, or a
// second list of routes. Elsewhere data means what it means to stock OPA.
const ours = "tollkeeper"

// dropped finds what the decoder would drop without a word of the data below tollkeeper: the first of two equal keys, and
// documents after the first.
func dropped(f *file) []Fault {
	inside := len(f.dir) > 0 && f.dir[0] == ours
	if !inside && (len(f.dir) > 0 || !bytes.Contains(f.bytes, []byte(ours))) {
		return nil
	}
	roots, err := trees(f)
	if err != nil {
		return nil // the decoder reports it
	}
	d := droppedFinder{file: f.name, seen: make(map[*yaml.Node]bool)}
	for i, root := range roots {
		_, below := child(root, ours)
		if i > 0 && (inside || below != nil) {
			d.add(root, "a second document, which would not be read: write it into a file of its own")
		}
		if i > 0 {
			continue
		}
		if inside {
			d.find(root)
		} else {
			d.findBelow(root)
		}
	}
	return d.faults
}

type droppedFinder struct {
	file   string
	seen   map[*yaml.Node]bool // anchors are walked once
	faults []Fault
}

func (d *droppedFinder) add(at *yaml.Node, format string, args ...any) {
	d.faults = append(d.faults, Fault{File: d.file, Line: at.Line, Column: at.Column, Code: faultDropped, Text: fmt.Sprintf(format, args...)})
}

// findBelow looks at the keys named tollkeeper of the top level, and at everything below them.
func (d *droppedFinder) findBelow(root *yaml.Node) {
	var first *yaml.Node
	for i := 0; root.Kind == yaml.MappingNode && i+1 < len(root.Content); i += 2 {
		switch key := root.Content[i]; {
		case isMerge(key) || keyText(key) != ours:
			continue
		case first == nil:
			first = key
		default:
			d.twice(key, first)
		}
		d.find(root.Content[i+1])
	}
}

func (d *droppedFinder) find(n *yaml.Node) {
	if n = target(n); d.seen[n] {
		return
	}
	d.seen[n] = true
	if n.Kind == yaml.MappingNode {
		first := make(map[string]*yaml.Node)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if name := keyText(key); first[name] != nil {
				d.twice(key, first[name])
			} else {
				first[name] = key
			}
		}
	}
	for _, c := range n.Content {
		d.find(c)
	}
}

func (d *droppedFinder) twice(key, first *yaml.Node) {
	d.add(key, "%q is written twice here, first on line %d: only one of them would be read", keyText(key), first.Line)
}
