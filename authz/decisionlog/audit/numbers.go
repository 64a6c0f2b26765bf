package audit

import (
	"maps"
	"math/bits"
	"slices"
)

// numbers is a set of numbers that are nearly all there, at a bit each. They come from a file, so that a wrong one, however large,
// must not cost more than one chunk.
type numbers struct {
	chunks map[uint64]*chunk
	max    uint64
}

const chunkBits = 8192

type chunk [chunkBits / 64]uint64

// add adds a number, and returns false if it was there already.
func (s *numbers) add(n uint64) bool {
	if s.chunks == nil {
		s.chunks = make(map[uint64]*chunk)
	}
	c := s.chunks[n/chunkBits]
	if c == nil {
		c = new(chunk)
		s.chunks[n/chunkBits] = c
	}
	word, bit := &c[n%chunkBits/64], uint64(1)<<(n%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	s.max = max(s.max, n)
	return true
}

// span is the numbers of a gap, both ends included.
type span struct{ from, to uint64 }

// gaps are the numbers from 1 to the largest that are not in the set.
func (s *numbers) gaps() []span {
	var out []span
	next := uint64(1)
	for _, at := range slices.Sorted(maps.Keys(s.chunks)) {
		for i, word := range s.chunks[at] {
			for ; word != 0; word &= word - 1 {
				n := at*chunkBits + uint64(i)*64 + uint64(bits.TrailingZeros64(word))
				if n > next {
					out = append(out, span{next, n - 1})
				}
				next = n + 1
			}
		}
	}
	return out
}
