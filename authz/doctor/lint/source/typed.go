package source

import (
	"slices"
	"strings"
)

// TypeKey is the key that names the type of a protobuf message in JSON.
const TypeKey = "@type"

// typedStruct is the suffix of two types that contain a message of another type: in udpa.type.v1 and xds.type.v3.
const typedStruct = ".TypedStruct"

// Typed returns a typed configuration. If it is a TypedStruct, Typed returns the message in it.
func (l Location) Typed() Location {
	inner := l.At("value")
	if !strings.HasSuffix(l.At(TypeKey).Text(), typedStruct) || !inner.exists {
		return l
	}
	value := inner.near
	inner.near = &node{isMap: true, line: value.line}
	inner.near.add(TypeKey, inner.line, l.At("type_url").near)
	if value.isMap {
		inner.near.keys = append(inner.near.keys, value.keys...)
		inner.near.items = append(inner.near.items, value.items...)
		inner.near.at = append(inner.near.at, value.at...)
	}
	return inner
}

// TypeName returns the name of the type of a typed configuration.
func (l Location) TypeName() string {
	url := l.Typed().At(TypeKey).Text()
	return url[strings.LastIndex(url, "/")+1:]
}

// Untyped returns a typed configuration without its type key: a plain message.
func Untyped(l Location) Location {
	if l.IsMap() {
		l.near = l.near.filtered(func(k string) bool { return k != TypeKey })
	}
	return l
}

// Without returns a map with fewer keys in one of its members.
func Without(l Location, member string, keys ...string) Location {
	n := l.value()
	inner := n.get(member)
	if inner == nil || !inner.isMap {
		return l
	}
	less := inner.filtered(func(k string) bool { return !slices.Contains(keys, Flatten(k)) })
	out := &node{isMap: true, line: n.line, keys: n.keys, at: n.at, items: slices.Clone(n.items)}
	out.items[n.find(member)] = less
	l.near = out
	return l
}
