package bolt

import (
	"context"
	"io"
	"os"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Restore makes a file of a backup, in a place where there is none. The backup is verified before, and the file is checked before it
// appears. A file of an older version stays one.
//
// The error is of KindConflict if the backup is not whole, or there is a file or a write-ahead log already.
func Restore(ctx context.Context, backup, path string) (info BackupInfo, err error) {
	in, err := os.Open(backup)
	if err != nil {
		return info, err
	}
	defer func() { _ = in.Close() }()
	if info, err = VerifyBackup(in); err != nil {
		return info, authz.Errorf(authz.KindOf(err), "%s: %w", backup, err)
	}
	isNew, err := prepare(path)
	if err != nil {
		return info, err
	}
	if !isNew {
		return info, authz.Errorf(authz.KindConflict, "there is a data file already, %s: nothing is written over it", path)
	}
	if err := noLog(path); err != nil {
		return info, err
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return info, authz.Errorf(authz.KindUnavailable, "reading the backup: %w", err)
	}
	return info, newFile(path, func(temp string) error { return restoreInto(ctx, in, temp) })
}

// restoreInto writes pages and changes to a file.
func restoreInto(ctx context.Context, in io.Reader, path string) error {
	var db *bbolt.DB
	defer func() {
		if db != nil {
			_ = db.Close()
		}
	}()
	apply := func(chunk []byte) error {
		if err := ctx.Err(); err != nil {
			return authz.Errorf(authz.KindUnavailable, "not restored: %w", err)
		}
		return db.Update(func(tx *bbolt.Tx) error { return applyChanges(tx, chunk) })
	}
	if _, err := readBackup(in, func(_ BackupInfo, pages io.Reader) (err error) {
		if err := writePages(path, pages); err != nil {
			return err
		}
		if db, err = openFile(path, bbolt.Options{FreelistType: bbolt.FreelistMapType, OpenFile: os.OpenFile}); err != nil {
			return err
		}
		return viewFile(ctx, db, checkPages)
	}, apply); err != nil {
		return err
	}
	return finishRestore(ctx, db)
}

func writePages(path string, pages io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return authz.Errorf(authz.KindUnavailable, "writing the data file: %w", err)
	}
	defer func() { _ = f.Close() }()
	if _, err = io.Copy(f, pages); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return authz.Errorf(authz.KindUnavailable, "writing the data file: %w", err)
	}
	return nil
}

// applyChanges makes the changes that the write-ahead log had.
func applyChanges(tx *bbolt.Tx, chunk []byte) error {
	var changes []change
	for at := 0; at < len(chunk); {
		c, size, ok := readChange(chunk[at:])
		if !ok {
			return damaged("a change in the backup cannot be read")
		}
		changes = append(changes, c)
		at += size
	}
	return putChanges(tx, changes)
}

// finishRestore gives the file an identity of its own, so that no write-ahead log of the one from which it comes is taken for its own,
// and checks it.
func finishRestore(ctx context.Context, db *bbolt.DB) error {
	isOld := false
	if err := viewFile(ctx, db, func(tx *bbolt.Tx) error {
		if err := checkFormat(tx); err != nil {
			return err
		}
		isOld = string(tx.Bucket([]byte(bucketMeta)).Get([]byte("format"))) == oldFormat
		return nil
	}); err != nil || isOld {
		return err
	}
	if err := db.Update(func(tx *bbolt.Tx) error {
		w := &write{tx: tx}
		if err := putFormat(w); err != nil {
			return err
		}
		return w.delete(bucketMeta, metaLogOpen)
	}); err != nil {
		return authz.Errorf(authz.KindUnavailable, "writing the data file: %w", err)
	}
	return viewFile(ctx, db, func(tx *bbolt.Tx) error {
		if checkCurrent(tx) != nil {
			return nil // it is upgraded when a server opens it
		}
		return checkWritten(tx, partLog)
	})
}
