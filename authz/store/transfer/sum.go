package transfer

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Sum tells two sets of entries apart, whatever their order.
type Sum struct {
	Count int64
	lanes [4]uint64 // the sum of the hashes of all entries, in four parts
	buf   []byte
}

// Add counts an entry in.
func (s *Sum) Add(e *Entry) {
	s.buf = append(s.buf[:0], e.Section...)
	s.buf = binary.AppendUvarint(append(s.buf, 0), uint64(len(e.Key)))
	s.buf = append(append(s.buf, e.Key...), e.Value...)
	hash := sha256.Sum256(s.buf)
	for i := range s.lanes {
		s.lanes[i] += binary.LittleEndian.Uint64(hash[8*i:])
	}
	s.Count++
}

// Same reports whether both have counted the same entries.
func (s *Sum) Same(other *Sum) bool { return s.Count == other.Count && s.lanes == other.lanes }

// Hash is the hash of all entries in hexadecimal.
func (s *Sum) Hash() string {
	return fmt.Sprintf("%016x%016x%016x%016x", s.lanes[0], s.lanes[1], s.lanes[2], s.lanes[3])
}
