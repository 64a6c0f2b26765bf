package bolt

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// A backup is the file and what the write-ahead log has, as they were at one instant:
//
//	magic, size of the info in 4 bytes, info (BackupInfo as JSON), the pages of the file,
//	chunks of changes (the size in 4 bytes, and changes as in a record of the log), 4 bytes of 0,
//	SHA-256 of everything before it
//
// Numbers are little-endian.
const backupMagic = "tollkeeper backup 1\n"

// BackupInfo is what a backup says about itself.
type BackupInfo struct {
	At     time.Time `json:"at"`
	Pages  int64     `json:"pages"`  // bytes of pages
	Pepper string    `json:"pepper"` // the fingerprint
}

const (
	maxBackupInfo = 1 << 16
	backupChunk   = 1 << 20 // bytes of changes, and one change more
)

// Backup writes a backup of the open file. It holds up neither reads nor writes, but the file cannot reuse pages meanwhile. It refuses
// a file whose pages are damaged.
func (db *DB) Backup(ctx context.Context, w io.Writer) error {
	return db.viewAll(ctx, func(s *snapshot) error { return s.backup(ctx, w, db.now()) })
}

// Backup writes a backup of a file that no server uses, with the write-ahead log of one that was killed.
func (f *File) Backup(ctx context.Context, w io.Writer, now time.Time) error {
	return viewFile(ctx, f.bolt, func(tx *bbolt.Tx) error {
		s := &snapshot{tx: tx}
		if err := checkPages(tx); err != nil {
			return err
		}
		if err := checkFormat(tx); err != nil {
			return err
		}
		if err := f.readLog(s); err != nil {
			return err
		}
		return s.backup(ctx, w, now)
	})
}

func (s *snapshot) backup(ctx context.Context, w io.Writer, now time.Time) error {
	if err := checkPages(s.tx); err != nil {
		return err
	}
	defer dropPages(s.tx)
	pepper := s.tx.Bucket([]byte(bucketMeta)).Get([]byte("pepper"))
	info, err := json.Marshal(&BackupInfo{At: now.UTC().Truncate(time.Second), Pages: s.tx.Size(), Pepper: string(pepper)})
	if err != nil {
		return err
	}
	out := &backupWriter{ctx: ctx, w: w, hash: sha256.New()}
	buffered := bufio.NewWriterSize(out, 1<<20)
	_, _ = buffered.WriteString(backupMagic) // Flush reports errors
	writeChunk(buffered, info)
	if _, err := s.tx.WriteTo(buffered); err != nil {
		return authz.Errorf(authz.KindUnavailable, "writing the backup: %w", err)
	}
	var chunk []byte
	for _, c := range sorted(s.layers) {
		if chunk = appendChange(chunk, &c); len(chunk) >= backupChunk {
			writeChunk(buffered, chunk)
			chunk = chunk[:0]
		}
	}
	if len(chunk) > 0 {
		writeChunk(buffered, chunk)
	}
	writeChunk(buffered, nil)
	err = buffered.Flush()
	if err == nil {
		_, err = w.Write(out.hash.Sum(nil))
	}
	if err != nil {
		return authz.Errorf(authz.KindUnavailable, "writing the backup: %w", err)
	}
	return nil
}

// writeChunk writes the size of a text and the text. The writer keeps its first error.
func writeChunk(w *bufio.Writer, text []byte) {
	_, _ = w.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(text))))
	_, _ = w.Write(text)
}

// backupWriter hashes what it writes, and ends with the context.
type backupWriter struct {
	ctx  context.Context
	w    io.Writer
	hash hash.Hash
}

func (b *backupWriter) Write(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	_, _ = b.hash.Write(p) // never fails
	return b.w.Write(p)
}

// readBackup reads a backup to its end. It passes the pages to one function, and each chunk of changes to another, and returns an
// error of KindConflict if the backup is not whole: what the functions got must not be used then.
func readBackup(r io.Reader, pages func(BackupInfo, io.Reader) error, changes func([]byte) error) (info BackupInfo, err error) {
	sum := sha256.New()
	in := io.TeeReader(bufio.NewReaderSize(r, 1<<20), sum)
	if !IsBackup(in) {
		return info, authz.Errorf(authz.KindConflict, "it is not a backup of tollkeeper, or one of another version")
	}
	text, err := readChunk(in, maxBackupInfo)
	if err == nil {
		err = json.Unmarshal(text, &info)
	}
	if err != nil {
		return info, cutShort(err)
	}
	rest := io.LimitReader(in, info.Pages)
	if err := pages(info, rest); err != nil {
		return info, cutShort(err)
	}
	if n, err := io.Copy(io.Discard, rest); n > 0 || err != nil {
		return info, cutShort(errors.New("pages are left"))
	}
	for {
		chunk, err := readChunk(in, maxChangesChunk)
		if err != nil {
			return info, cutShort(err)
		}
		if len(chunk) == 0 {
			break
		}
		if err := changes(chunk); err != nil {
			return info, err
		}
	}
	want := sum.Sum(nil)
	got := make([]byte, len(want)+1)
	if n, err := io.ReadFull(in, got); n != len(want) || !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Equal(got[:n], want) {
		return info, authz.Errorf(authz.KindConflict, "the backup is damaged: its checksum is wrong")
	}
	return info, nil
}

// IsBackup reads the beginning of a file, and reports whether it is that of a backup.
func IsBackup(r io.Reader) bool {
	magic := make([]byte, len(backupMagic))
	_, err := io.ReadFull(r, magic)
	return err == nil && string(magic) == backupMagic
}

// maxChangesChunk is the largest chunk: one change may be as large as a value of bbolt.
const maxChangesChunk = backupChunk + bbolt.MaxKeySize + bbolt.MaxValueSize

func readChunk(in io.Reader, limit int64) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(size[:]))
	if n > limit {
		return nil, errors.New("a part has an impossible size")
	}
	var out bytes.Buffer // grows with what is there: the size may be wrong
	if _, err := io.CopyN(&out, in, n); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// cutShort is the error of a backup that ends early, or is damaged before its end.
func cutShort(err error) error {
	var ours *authz.Error
	if errors.As(err, &ours) {
		return err
	}
	return authz.Errorf(authz.KindConflict, "the backup is damaged or not whole: %w", err)
}

// VerifyBackup reads a backup to its end, and compares the checksum.
func VerifyBackup(r io.Reader) (BackupInfo, error) {
	return readBackup(r, func(info BackupInfo, pages io.Reader) error {
		n, err := io.Copy(io.Discard, pages)
		if err == nil && n < info.Pages {
			err = io.ErrUnexpectedEOF
		}
		return err
	}, func([]byte) error { return nil })
}
