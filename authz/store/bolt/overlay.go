package bolt

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
)

// overlay holds what the write-ahead log has and the file does not have yet, in layers. Records are added to the newest layer.
// The older ones are frozen: they do not change, and are on their way into the file.
type overlay struct {
	drops atomic.Uint64 // rises when layers are dropped, which the file has by then
	takes atomic.Uint64 // rises before the content of layers begins to go into the file

	mu     sync.RWMutex
	layers []*layer // the oldest first; never empty. Replaced, not changed.
}

func newOverlay() *overlay { return &overlay{layers: []*layer{newLayer()}} }

// add puts a record of the log, which is durable, into the newest layer. It returns the size of that layer.
func (o *overlay) add(record []byte, seq uint64) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.layers[len(o.layers)-1]
	l.last = seq
	return l.size, l.add(record)
}

// all returns the layers of now.
func (o *overlay) all() []*layer {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.layers
}

// freeze begins a new layer, and returns those before it.
func (o *overlay) freeze() []*layer {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.layers[len(o.layers)-1].size > 0 {
		o.layers = append(slices.Clip(o.layers), newLayer())
	}
	return o.layers[:len(o.layers)-1]
}

// drop removes the oldest n layers.
func (o *overlay) drop(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.layers = slices.Clone(o.layers[n:])
	o.drops.Add(1)
}

// size is how many bytes the overlay holds.
func (o *overlay) size() int {
	n := 0
	for _, l := range o.all() {
		n += l.size
	}
	return n
}

// layer finds changes by bucket and key. A record of the log is stored as it is, and the map has no pointers: a layer of 32 MB is
// a hundred objects to the garbage collector.
type layer struct {
	last   uint64 // the number of the last record
	size   int
	chunks [][]byte
	index  map[uint64]uint64 // hash of bucket and key -> chunk and offset of the change made last
	others map[string]uint64 // bucket and key -> the same, of those whose hash another key has
}

func newLayer() *layer { return &layer{index: make(map[uint64]uint64)} }

// maxChunk is the size of a large layer's chunks.
const maxChunk = 512 << 10

// add copies a record of the log and indexes its changes.
func (l *layer) add(record []byte) error {
	n := len(l.chunks)
	if n == 0 || len(record) > cap(l.chunks[n-1])-len(l.chunks[n-1]) {
		l.chunks = append(l.chunks, make([]byte, 0, max(len(record), min(maxChunk, max(1<<10, l.size)))))
		n++
	}
	at := len(l.chunks[n-1])
	l.chunks[n-1] = append(l.chunks[n-1], record...)
	l.size += len(record)
	for at < len(l.chunks[n-1]) {
		c, size, ok := readChange(l.chunks[n-1][at:])
		if !ok {
			return damaged("a record of the write-ahead log cannot be read")
		}
		l.put(&c, uint64(n-1)<<32|uint64(at))
		at += size
	}
	return nil
}

func (l *layer) put(c *change, at uint64) {
	h := hashOf(c.bucket, c.key)
	if old, ok := l.index[h]; ok {
		if was := l.at(old); !was.is(c.bucket, c.key) {
			if l.others == nil {
				l.others = make(map[string]uint64)
			}
			l.others[otherKey(c.bucket, c.key)] = at
			return
		}
	}
	l.index[h] = at
}

func otherKey(bucket bucketCode, key []byte) string {
	return string(append([]byte{byte(bucket)}, key...))
}

// at reads the change at a place in the chunks.
func (l *layer) at(place uint64) change {
	c, _, _ := readChange(l.chunks[place>>32][uint32(place):])
	return c
}

// find returns the change of a key that was made last.
func (l *layer) find(hash uint64, bucket bucketCode, key []byte) (change, bool) {
	place, ok := l.index[hash]
	if !ok {
		return change{}, false
	}
	if c := l.at(place); c.is(bucket, key) {
		return c, true
	}
	place, ok = l.others[otherKey(bucket, key)]
	if !ok {
		return change{}, false
	}
	return l.at(place), true
}

// each calls a function for the last change of every key, in no order.
func (l *layer) each(do func(*change)) {
	for _, place := range l.index {
		c := l.at(place)
		do(&c)
	}
	for _, place := range l.others {
		c := l.at(place)
		do(&c)
	}
}

// newest calls a function for the last change of every key in the layers, in no order.
func newest(layers []*layer, do func(*change)) {
	for i, l := range layers {
		newer := layers[i+1:]
		l.each(func(c *change) {
			if _, ok := findIn(newer, hashOf(c.bucket, c.key), c.bucket, c.key); !ok {
				do(c)
			}
		})
	}
}

// sorted returns the last changes of all keys, by bucket and key.
func sorted(layers []*layer) []change {
	var out []change
	newest(layers, func(c *change) { out = append(out, *c) })
	slices.SortFunc(out, func(a, b change) int {
		if a.bucket != b.bucket {
			return int(a.bucket) - int(b.bucket)
		}
		return bytes.Compare(a.key, b.key)
	})
	return out
}

// findIn looks through layers, the newest first.
func findIn(layers []*layer, hash uint64, bucket bucketCode, key []byte) (change, bool) {
	for i := len(layers) - 1; i >= 0; i-- {
		if c, ok := layers[i].find(hash, bucket, key); ok {
			return c, true
		}
	}
	return change{}, false
}

var seed = maphash.MakeSeed()

func hashOf(bucket bucketCode, key []byte) uint64 {
	return maphash.Bytes(seed, key) + uint64(bucket)*0x9e3779b97f4a7c15
}

// change is what one write did to one key. On disk it is the bucket's code with a bit for a deletion, the lengths of key and
// value, the key and the value.
type change struct {
	bucket     bucketCode
	deleted    bool
	key, value []byte
}

const deletedBit = 0x80

func (c *change) is(bucket bucketCode, key []byte) bool {
	return c.bucket == bucket && bytes.Equal(c.key, key)
}

// found is the value as a reader wants it: nil if there is none.
func (c *change) found() []byte {
	switch {
	case c.deleted:
		return nil
	case c.value == nil:
		return []byte{}
	}
	return c.value
}

func appendChange(out []byte, c *change) []byte {
	code := byte(c.bucket)
	if c.deleted {
		code |= deletedBit
	}
	out = append(out, code)
	out = binary.AppendUvarint(out, uint64(len(c.key)))
	out = binary.AppendUvarint(out, uint64(len(c.value)))
	return append(append(out, c.key...), c.value...)
}

// readChange reads the change at the beginning of a text, and returns its size.
func readChange(in []byte) (c change, size int, ok bool) {
	if len(in) == 0 {
		return change{}, 0, false
	}
	c.bucket, c.deleted = bucketCode(in[0]&^deletedBit), in[0]&deletedBit != 0
	key, n := binary.Uvarint(in[1:])
	if n <= 0 {
		return change{}, 0, false
	}
	at := 1 + n
	value, n := binary.Uvarint(in[at:])
	if n <= 0 || key > uint64(len(in)) || value > uint64(len(in)) {
		return change{}, 0, false
	}
	at += n
	end := at + int(key)
	size = end + int(value)
	if size > len(in) || !c.bucket.known() {
		return change{}, 0, false
	}
	c.key, c.value = in[at:end:end], in[end:size:size]
	return c, size, true
}
