package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/server"
)

// backupMade is the answer of backup and restore.
type backupMade struct {
	File string `json:"file"`
	Dir  string `json:"data_dir,omitempty"` // into which it was restored
	server.BackupInfo
}

func (c *cli) backupCmd() *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Write a backup of the data file",
		Long: `Write a backup of the data file with its write-ahead log, as both are at one instant. If a
server runs on the data directory, it makes the backup and continues to answer. Otherwise
the file is read here.

The backup has a checksum and is verified before it gets its name. An older backup of that
name is replaced then; any other file is not. It has accounts, keys (as digests), revocations
and quotas, but not the pepper, the admin token, the configuration or the policies: keep
copies of these too.

A store in PostgreSQL is backed up with pg_dump, or for recovery to a point in time.`,
		Example: "  tollkeeper backup /backups/tollkeeper\n  tollkeeper backup /backups/tollkeeper --data-dir /var/lib/tollkeeper",
		Args:    args("the file to write"),
		RunE:    func(cmd *cobra.Command, a []string) error { return c.backup(cmd, a[0]) },
	}
}

func (c *cli) backup(cmd *cobra.Command, file string) error {
	if err := mayReplace(file); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*.new") // which only the owner can read
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	defer func() { _ = temp.Close() }()
	if err := c.writeBackup(cmd, temp); err != nil {
		return err
	}
	info, err := settleBackup(temp, file)
	if err != nil {
		return err
	}
	return c.show(cmd, backupMade{File: file, BackupInfo: info}, func(t *table) {
		t.sentence("The backup is written to %s, and verified: the state of %s.", file, when(info.At))
	})
}

// writeBackup asks the server that has the file open for a backup. If there is none, it reads the file itself.
func (c *cli) writeBackup(cmd *cobra.Command, w io.Writer) error {
	if c.address == "" {
		if c.dataDir == "" {
			if c.dataDir = c.ledgerDir(cmd); c.dataDir == "" {
				return errors.New("no data directory found: give one with --data-dir")
			}
		}
		if !runs(c.dataDir) {
			if err := server.Backup(cmd.Context(), c.dataDir, w); !errors.Is(err, server.ErrRunning) {
				return err
			}
		}
	}
	client, err := c.client(cmd)
	if err != nil {
		return err
	}
	return client.Download(cmd.Context(), admin.Path("backup"), w)
}

// mayReplace refuses to write over a file that is no backup, such as the data file.
func mayReplace(file string) error {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if !server.IsBackup(f) {
		return fmt.Errorf("%s is no backup of tollkeeper: choose another name", file)
	}
	return nil
}

// settleBackup verifies what was written, makes it durable and gives it its name.
func settleBackup(temp *os.File, file string) (info server.BackupInfo, err error) {
	if _, err := temp.Seek(0, io.SeekStart); err != nil {
		return info, err
	}
	if info, err = server.VerifyBackup(temp); err != nil {
		return info, err
	}
	if err := temp.Sync(); err != nil {
		return info, err
	}
	if err := os.Rename(temp.Name(), file); err != nil {
		return info, err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return info, err
	}
	return info, errors.Join(dir.Sync(), dir.Close())
}

func (c *cli) restoreCmd() *cobra.Command {
	return &cobra.Command{
		Use: "restore FILE", Short: "Create a data file from a backup, in a directory without one",
		Long: `Create the data file of a backup in the directory that --data-dir names. A directory that has
a data file, or in which a server runs, is refused. The backup is verified and the file is
checked before it appears.

What was changed after the backup is lost. Read this before you start a server on it:

  - Revocations are lost: keys and tokens that were revoked since then are accepted again, and
    so are keys that were disabled and accounts that were suspended. Repeat these first.
  - Usage is forgotten: callers can use up again what they used since then.
  - Keys that were created since then are unknown, and credits have to be repeated.
  - Limits per second and minute start over. What servers held at the time of the backup is
    stranded, as after a crash.

Start the server with the pepper that it had. If you can still read the data directory with
its write-ahead log, start a server on that instead: it loses nothing.`,
		Example: "  tollkeeper restore /backups/tollkeeper --data-dir restored",
		Args:    args("the backup to restore"),
		RunE:    func(cmd *cobra.Command, a []string) error { return c.restore(cmd, a[0]) },
	}
}

func (c *cli) restore(cmd *cobra.Command, file string) error {
	if c.dataDir == "" {
		return usagef("give a directory without a data file: --data-dir restored")
	}
	info, err := server.Restore(cmd.Context(), file, c.dataDir)
	if err != nil {
		return err
	}
	note(cmd, "revocations since %s are lost: what was revoked, disabled or suspended since then is accepted until you repeat it", when(info.At))
	note(cmd, "usage since then is forgotten: callers can use it up again, and limits per second and minute start over")
	note(cmd, "keys and credits since then are gone, and what servers held then is stranded: see tollkeeper quota stranded")
	return c.show(cmd, backupMade{file, c.dataDir, info}, func(t *table) {
		t.sentence("The data file in %s is restored to the state of %s.", c.dataDir, when(info.At))
	})
}
