// Package textmap is a map from texts to texts that has no pointers, so that the garbage collector does not look into it.
package textmap

import (
	"bytes"
	"encoding/binary"
	"iter"
	"math"
)

// Map holds a text for each key. The zero Map is empty. It must not be used by two goroutines at once.
//
// Entries lie one after the other in one piece of memory. An entry that is taken out leaves a gap, and when a third is gaps, the
// others are moved together: each entry that is put costs two moves of others at most.
type Map struct {
	at    map[uint32]uint32 // tag of a key -> where its entry begins
	bytes []byte            // each entry: its tag, the sizes of key and text, the key, the text
	gaps  int               // bytes
	// others are the entries of keys whose tag another one has, and of those for which there is no room: next to none.
	others map[string]string
}

// Put sets the text of a key. The hash is the key's; two keys may share it, which costs memory only.
func (m *Map) Put(hash uint64, key, text []byte) {
	m.Take(hash, key, nil)
	tag := tagOf(hash)
	_, taken := m.at[tag]
	if taken || len(m.bytes)+len(key)+len(text)+tagSize+2*binary.MaxVarintLen64 > math.MaxUint32 {
		if m.others == nil {
			m.others = make(map[string]string)
		}
		m.others[string(key)] = string(text)
		return
	}
	if m.at == nil {
		m.at = make(map[uint32]uint32)
	}
	m.at[tag] = uint32(len(m.bytes))
	m.bytes = binary.NativeEndian.AppendUint32(m.bytes, tag)
	m.bytes = binary.AppendUvarint(m.bytes, uint64(len(key))<<1)
	m.bytes = binary.AppendUvarint(m.bytes, uint64(len(text)))
	m.bytes = append(append(m.bytes, key...), text...)
}

// Has reports whether there is a text for the key.
func (m *Map) Has(hash uint64, key []byte) bool {
	if at, ok := m.at[tagOf(hash)]; ok {
		if k, _, _ := m.entry(at); string(k) == string(key) {
			return true
		}
	}
	_, ok := m.others[string(key)]
	return ok
}

// Take removes a key, and appends its text to out. It returns false if there is none.
func (m *Map) Take(hash uint64, key, out []byte) ([]byte, bool) {
	tag := tagOf(hash)
	if at, ok := m.at[tag]; ok {
		if k, text, size := m.entry(at); string(k) == string(key) {
			out = append(out, text...)
			delete(m.at, tag)
			m.bytes[at+tagSize] |= gapBit
			m.gaps += size
			m.close()
			return out, true
		}
	}
	text, ok := m.others[string(key)]
	delete(m.others, string(key))
	return append(out, text...), ok
}

// Len is how many keys there are.
func (m *Map) Len() int { return len(m.at) + len(m.others) }

// All is the keys and their texts, in no order. They are good until the Map changes.
func (m *Map) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, text []byte) bool) {
		for _, at := range m.at {
			if key, text, _ := m.entry(at); !yield(key, text) {
				return
			}
		}
		for key, text := range m.others {
			if !yield([]byte(key), []byte(text)) {
				return
			}
		}
	}
}

const (
	tagSize = 4
	gapBit  = 1 // of the number after the tag: the others are the size of the key
)

func tagOf(hash uint64) uint32 { return uint32(hash >> 32) }

// entry reads an entry, and returns its size.
func (m *Map) entry(at uint32) (key, text []byte, size int) {
	b := m.bytes[at:]
	k, n := binary.Uvarint(b[tagSize:])
	t, n2 := binary.Uvarint(b[tagSize+n:])
	begin := tagSize + n + n2
	end := begin + int(k>>1)
	size = end + int(t)
	return b[begin:end:end], b[end:size:size], size
}

// leastGaps is so little memory that it is not worth a move.
const leastGaps = 1 << 10

// close moves the entries together if there are many gaps.
func (m *Map) close() {
	if m.gaps < leastGaps || m.gaps < len(m.bytes)/3 {
		return
	}
	to := 0
	for at := 0; at < len(m.bytes); {
		_, _, size := m.entry(uint32(at))
		if m.bytes[at+tagSize]&gapBit == 0 {
			m.at[binary.NativeEndian.Uint32(m.bytes[at:])] = uint32(to)
			to += copy(m.bytes[to:], m.bytes[at:][:size])
		}
		at += size
	}
	m.bytes, m.gaps = m.bytes[:to], 0
	if to < cap(m.bytes)/4 {
		m.bytes = bytes.Clone(m.bytes)
	}
}
