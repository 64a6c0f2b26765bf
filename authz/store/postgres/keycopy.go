package postgres

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keycache"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/localcopy"
)

// The kinds of entries of the local copy of keys.
const (
	copyDigests      = iota // beginnings of digests, one after the other
	copyKey                 // a digest and the record of its key
	copyOtherKey            // the digest of a key that is not held
	copyAccount             // an id, the size of the id in 2 bytes, and the record, before it
	copyOtherAccount        // the id of an account that is not held
)

const (
	keyCopyName = "keys.copy"
	// copyEvery is how often the copy is brought up to date at the most.
	copyEvery = 5 * time.Second
	// copyRetry is the pause after it could not be written.
	copyRetry = time.Minute
	// copySlack is how much a copy may grow, besides its own size, before it is written anew.
	copySlack = 16 << 20
	// touchedReads is how many records that were read are remembered between two updates, and touchedAtAll how many with those that
	// have changed. After more, the copy is written anew.
	touchedReads = 50_000
	touchedAtAll = 200_000
)

// keyCopy keeps the local copy of what memory holds. It remembers whose records have changed or were read, and writes from time to
// time what they are by then. All methods work on nil, which keeps no copy; only touch and read may be called concurrently.
type keyCopy struct {
	db   *DB
	path string

	mu      sync.Mutex
	touched map[string]struct{} // names as nameOf makes them
	lost    bool                // there were more than are remembered

	slack   int64             // copySlack, but in tests
	file    *localcopy.Writer // nil: there is none, or it must not be written to any more
	base    int64             // its size at first
	updated time.Time
	failed  time.Time  // when it could not be written last
	whole   *wholeCopy // that is being written
}

// wholeCopy is a copy that is being written from the beginning, while records change.
type wholeCopy struct {
	done  chan struct{}
	file  *localcopy.Writer
	err   error
	since map[string]struct{} // what was touched meanwhile
}

// copyPosition is the position of a mark.
type copyPosition struct {
	Installation string  `json:"installation"`
	After        int64   `json:"after"`
	Places       []place `json:"places"`
}

func newKeyCopy(db *DB, dir string) *keyCopy {
	return &keyCopy{db: db, path: filepath.Join(dir, keyCopyName), slack: cmp.Or(db.o.copySlack, copySlack), touched: make(map[string]struct{})}
}

// head says what the file is. The digests in it depend on the pepper.
func (c *keyCopy) head() []byte { return []byte("tollkeeper keys 1 " + c.db.o.Pepper) }

// nameOf is the digest of a key, or the id of an account, as one text.
func nameOf(isKey bool, name []byte) string {
	if isKey {
		return "k" + string(name)
	}
	return "a" + string(name)
}

// touch notes that records have changed. It MUST be called after memory has the change.
func (c *keyCopy) touch(changes []keyChange) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range changes {
		c.touched[nameOf(changes[i].isKey, changes[i].name)] = struct{}{}
	}
	if len(c.touched) > touchedAtAll {
		c.touched, c.lost = make(map[string]struct{}), true
	}
}

// read notes that a record was read, and is likely to be held.
func (c *keyCopy) read(isKey bool, name []byte) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.touched) < touchedReads {
		c.touched[nameOf(isKey, name)] = struct{}{}
	}
}

// restart forgets the file, because memory was loaded anew and may hold less.
func (c *keyCopy) restart() {
	if c == nil {
		return
	}
	if c.file != nil {
		_ = c.file.Close() // it is not used any more
		c.file = nil
	}
	c.dropWhole()
}

// dropWhole gives up the copy that is being written.
func (c *keyCopy) dropWhole() {
	if c.whole != nil {
		<-c.whole.done
		if c.whole.file != nil {
			_ = c.whole.file.Close()
		}
		c.whole = nil
	}
}

// update brings the copy up to date with a feed that was just read to its end.
func (c *keyCopy) update(f *keyFeed) {
	if time.Since(c.updated) < min(copyEvery, c.db.o.MaxStaleness/10) {
		return
	}
	if time.Since(c.failed) < copyRetry {
		c.take() // would grow
		return
	}
	c.updated = time.Now()
	if err := c.write(f); err != nil {
		c.failed = time.Now()
		c.db.o.Logger.Warn("the local copy of the keys cannot be written: without it, this node cannot start while PostgreSQL is away", "error", err)
		c.restart()
	}
}

// take returns what was touched since the last call. If that is not known, the copy has to begin again.
func (c *keyCopy) take() map[string]struct{} {
	c.mu.Lock()
	names, lost := c.touched, c.lost
	c.touched, c.lost = make(map[string]struct{}), false
	c.mu.Unlock()
	if lost || c.whole != nil && len(c.whole.since) > touchedAtAll {
		c.restart()
	}
	return names
}

func (c *keyCopy) write(f *keyFeed) error {
	names, cache := c.take(), f.keys.held.Load().cache
	if c.file != nil {
		if err := errors.Join(addNames(c.file, cache, names), c.mark(c.file, f)); err != nil {
			return err
		}
	}
	if c.whole == nil && (c.file == nil || c.file.Size() > 2*c.base+c.slack) {
		c.whole = c.begin(cache)
		return nil
	}
	if c.whole == nil {
		return nil
	}
	for name := range names {
		c.whole.since[name] = struct{}{}
	}
	select {
	case <-c.whole.done:
		return c.finish(f, cache)
	default:
		return nil
	}
}

// finish replaces the file by the whole copy, once that is up to date.
func (c *keyCopy) finish(f *keyFeed, cache *keycache.Cache) error {
	w := c.whole.file
	if c.whole.err != nil {
		return c.whole.err
	}
	if err := errors.Join(addNames(w, cache, c.whole.since), c.mark(w, f), w.Publish()); err != nil {
		return err
	}
	c.whole = nil
	if c.file != nil {
		_ = c.file.Close()
	}
	c.file, c.base = w, w.Size()
	return nil
}

// mark says that the copy was complete when the feed was last read to its end.
func (c *keyCopy) mark(w *localcopy.Writer, f *keyFeed) error {
	age, _ := f.age()
	places, _, _ := f.reader.places() // after the last change that was copied
	position, err := json.Marshal(copyPosition{f.installation, f.after, places})
	if err != nil {
		return err
	}
	return w.Mark(time.Now().Add(-age), position)
}

// begin writes a whole copy in the background: the feed must not wait for the disk.
func (c *keyCopy) begin(cache *keycache.Cache) *wholeCopy {
	b := &wholeCopy{done: make(chan struct{}), since: make(map[string]struct{})}
	go func() {
		defer close(b.done)
		if b.file, b.err = localcopy.Create(c.path, c.head()); b.err == nil {
			b.err = errors.Join(addAll(b.file, cache), b.file.Sync())
		}
	}()
	return b
}

// close brings the file up to date for the last time.
func (c *keyCopy) close(f *keyFeed) {
	if c.file != nil {
		if err := errors.Join(addNames(c.file, f.keys.held.Load().cache, c.take()), c.mark(c.file, f), c.file.Close()); err != nil {
			c.db.o.Logger.Warn("the local copy of the keys could not be finished", "error", err)
		}
	}
	c.dropWhole()
}

// digestsPerEntry is how many digests an entry holds.
const digestsPerEntry = 8192

// addAll adds everything that is held.
func addAll(w *localcopy.Writer, cache *keycache.Cache) error {
	var block []byte
	err := cache.EachDigest(func(b keycache.Beginning) (err error) {
		if block = append(block, b[:]...); len(block) == digestsPerEntry*len(b) {
			err = w.Add(copyDigests, block)
			block = block[:0]
		}
		return err
	})
	if err == nil {
		err = w.Add(copyDigests, block)
	}
	if err == nil {
		err = cache.EachKey(func(digest, record []byte) error { return w.Add(copyKey, digest, record) })
	}
	if err == nil {
		err = cache.EachAccount(func(id, record []byte) error { return addAccount(w, id, record) })
	}
	return err
}

func addAccount(w *localcopy.Writer, id, record []byte) error {
	return w.Add(copyAccount, binary.LittleEndian.AppendUint16(nil, uint16(len(id))), id, record)
}

// addNames adds what is held of the names by now.
func addNames(w *localcopy.Writer, cache *keycache.Cache, names map[string]struct{}) error {
	for name := range names {
		var err error
		id := []byte(name[1:])
		if name[0] == 'k' {
			if record, ok := cache.HeldKey(apikey.Digest(id)); ok {
				err = w.Add(copyKey, id, []byte(record))
			} else {
				err = w.Add(copyOtherKey, id)
			}
		} else if record, ok := cache.HeldAccount(name[1:]); ok {
			err = addAccount(w, id, []byte(record))
		} else {
			err = w.Add(copyOtherAccount, id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// loadCopy has memory hold what the local copy has, as old as it is.
func (f *keyFeed) loadCopy() {
	held := newHeldKeys(f.keys.reader)
	mark, err := localcopy.Read(f.copy.path, f.copy.head(), func(kind byte, body []byte) error { return readCopy(held.cache, kind, body) })
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var at copyPosition
	if err == nil {
		if err = json.Unmarshal(mark.Position, &at); err == nil && len(at.Places) == 0 {
			err = errDamagedCopy
		}
	}
	log := f.keys.db.o.Logger
	if err != nil {
		log.Warn("the local copy of the keys is not used", "error", err)
		return
	}
	age := time.Since(mark.At)
	known := f.keys.db.knownInstallation()
	if age < 0 || known != "" && known != at.Installation {
		log.Warn("the local copy of the keys is not used: it is of another installation, or from the future", "age", age, "installation", at.Installation)
		return
	}
	f.after, f.installation = at.After, at.Installation
	f.reader.start(at.Places...)
	f.keys.held.Store(held)
	f.read.Store(int64(time.Since(f.epoch) - age))
	log.Info("the local copy of the keys was read", "age", age)
}

// errDamagedCopy says that an entry is not what this program writes.
var errDamagedCopy = authz.Errorf(authz.KindUnavailable, "the local copy of the keys is damaged")

// readCopy applies an entry of the copy.
func readCopy(cache *keycache.Cache, kind byte, body []byte) error {
	const digest = len(apikey.Digest{})
	switch {
	case kind == copyDigests:
		for ; len(body) >= len(keycache.Beginning{}); body = body[len(keycache.Beginning{}):] {
			cache.AddBeginning(keycache.Beginning(body))
		}
	case kind == copyKey && len(body) > digest:
		cache.PutKey(apikey.Digest(body), body[digest:])
	case kind == copyOtherKey && len(body) == digest:
		cache.AddDigest(apikey.Digest(body))
		cache.DropKey(apikey.Digest(body))
	case kind == copyAccount && len(body) >= 2 && len(body) >= 2+int(binary.LittleEndian.Uint16(body)):
		n := 2 + int(binary.LittleEndian.Uint16(body))
		cache.PutAccount(string(body[2:n]), body[n:])
	case kind == copyOtherAccount:
		cache.DropAccount(string(body))
	default:
		return errDamagedCopy
	}
	return nil
}
