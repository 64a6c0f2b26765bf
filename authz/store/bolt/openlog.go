package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt/wal"
)

// logFolder is the folder of a file's write-ahead log. It is there while a server runs, and after one was killed.
func logFolder(path string) string { return path + "-log" }

// logState is what the file says about its log.
type logState struct {
	id      wal.ID
	applied uint64
	open    bool // the log may have records that are not in the file
}

// stateOfLog reads what the file says about its log. A file of oldFormat has no log, and the zero state.
func stateOfLog(tx *bbolt.Tx) (logState, error) {
	var s logState
	meta := tx.Bucket([]byte(bucketMeta))
	if string(meta.Get([]byte("format"))) == oldFormat {
		return s, nil
	}
	id, applied := meta.Get(metaLogID), meta.Get(metaLogApplied)
	if len(id) != len(s.id) || len(applied) != 8 {
		return s, damaged("it does not say which write-ahead log it has")
	}
	s.id, s.applied, s.open = wal.ID(id), binary.BigEndian.Uint64(applied), meta.Get(metaLogOpen) != nil
	return s, nil
}

// checkFolder refuses a file whose log is gone: acknowledged writes would be lost. It reports whether there is a folder.
func (s logState) checkFolder(folder string) (bool, error) {
	_, err := os.Stat(folder)
	switch {
	case err == nil:
		return true, nil
	case !errors.Is(err, fs.ErrNotExist):
		return false, authz.Errorf(authz.KindUnavailable, "cannot look at the write-ahead log: %w", err)
	case s.open:
		return false, authz.Errorf(authz.KindConflict, "its write-ahead log %s is missing, which has the last writes: restore the folder, "+
			"or a backup of a server that was stopped; to go on without these writes, make an empty folder of that name", folder)
	}
	return false, nil
}

// checkAge refuses a log that is older than the file, such as one from a backup: later records, which were acknowledged, may not be
// in the file. The segment with the last record that is in the file is dropped after all that came before it.
func (s logState) checkAge(found *wal.Found, folder string) error {
	if !s.open || found.Seen == 0 || found.Seen >= s.applied {
		return nil
	}
	return authz.Errorf(authz.KindConflict, "its write-ahead log %s ends with record %d, and the file already has record %d: restore both as "+
		"they were at one instant, or a backup of a server that was stopped; to go on without the last writes, empty the folder",
		folder, found.Seen, s.applied)
}

// readLog reads a log into an overlay, without changing it.
func readLog(tx *bbolt.Tx, path string, o *overlay) error {
	state, err := stateOfLog(tx)
	if err != nil {
		return err
	}
	there, err := state.checkFolder(logFolder(path))
	if err != nil || !there || state == (logState{}) {
		return err
	}
	found, err := wal.Read(logFolder(path), state.id, state.applied, o.replay)
	if err != nil {
		return err
	}
	return state.checkAge(&found, logFolder(path))
}

// replay adds a record of a log that is being read.
func (o *overlay) replay(seq uint64, record []byte) error {
	_, err := o.add(record, seq)
	return err
}

// openLog reads the log into the overlay, and starts nothing yet.
func (db *DB) openLog(path string, o Options) error {
	var state logState
	err := db.view(context.Background(), func(tx *bbolt.Tx) (err error) {
		state, err = stateOfLog(tx)
		return err
	})
	if err != nil {
		return authz.Errorf(authz.KindOf(err), "%s: %w", path, err)
	}
	folder := logFolder(path)
	there, err := state.checkFolder(folder)
	if err != nil {
		return authz.Errorf(authz.KindOf(err), "%s: %w", path, err)
	}
	db.overlay = newOverlay()
	log, found, err := wal.Open(folder, wal.Options{ID: state.id, Applied: state.applied, SegmentSize: o.sizes.segment, OpenFile: o.openFile}, db.overlay.replay)
	if authz.KindOf(err) == authz.KindConflict {
		return authz.Errorf(authz.KindConflict, "%s: %w; if the file was restored from a backup, remove %s, which is of a later time", path, err, folder)
	}
	if err == nil {
		err = state.checkAge(&found, folder)
	}
	if err != nil {
		return authz.Errorf(authz.KindOf(err), "%s: %w", path, err)
	}
	if there && state.open && found.Segments == 0 {
		o.Logger.Error("the write-ahead log is empty: the last writes before the server was killed are lost", "folder", folder)
	}
	db.log = log
	db.mover = &mover{
		overlay: db.overlay, wal: log, file: db.commits, chunk: o.sizes.chunk, now: o.Now, log: o.Logger,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	db.ledger = newCommitter(&logLane{
		db: db.bolt, log: log, overlay: db.overlay, faults: db.file.faults, sizes: o.sizes, full: db.mover.soon, opened: state.open,
		sharedBooks: db.sharedBooks,
		open:        func() error { return db.setLogOpen(true) },
	}, o.Logger)
	if found.Last > state.applied {
		db.mover.soon()
	}
	return nil
}

// LogSize is how many bytes of the write-ahead log may have records that are not in the file yet.
func (db *DB) LogSize() int64 { return db.log.Size() }

// setLogOpen notes in the file whether the log may have records that the file has not.
func (db *DB) setLogOpen(open bool) error {
	return db.commits.do(context.Background(), func(w *write) error {
		switch {
		case open:
			return w.put(bucketMeta, metaLogOpen, []byte("yes"))
		case w.get(bucketMeta, metaLogOpen) == nil:
			return nil
		}
		return w.delete(bucketMeta, metaLogOpen)
	})
}

// closeLog moves everything into the file, and removes the log. The lane of the file still runs, that of the log does not.
func (db *DB) closeLog() error {
	err := db.mover.move(context.Background())
	if err == nil {
		err = db.setLogOpen(false)
	}
	if closeErr := db.log.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return authz.Errorf(authz.KindUnavailable, "the write-ahead log stays, and is read at the next start: %w", err)
	}
	return wal.Remove(logFolder(db.bolt.Path()))
}
