package localstore

import (
	"fmt"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A tableWriter writes keys, which must be given in order, to table files for pebble.DB.Ingest.
type tableWriter struct {
	store *Store
	dir   string
	files []string
	now   *sstable.Writer // nil between two files
}

// maxTableSize is about the size of the tables that Pebble writes to its last level.
const maxTableSize = 64 << 20

func (w *tableWriter) add(key, value []byte) error {
	if w.now == nil {
		if err := w.create(); err != nil {
			return err
		}
	}
	if err := w.now.Set(key, value); err != nil {
		return fmt.Errorf("write a table: %w", err)
	}
	if w.now.Raw().EstimatedSize() < maxTableSize {
		return nil
	}
	return w.close()
}

func (w *tableWriter) create() error {
	name := filepath.Join(w.dir, fmt.Sprintf("table-%d", len(w.files)))
	f, err := vfs.Default.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("create a table: %w", err)
	}
	w.files = append(w.files, name)
	options := w.store.options.MakeWriterOptions(lastLevel, w.store.db.TableFormat())
	w.now = sstable.NewWriter(objstorageprovider.NewFileWritable(f), options)
	return nil
}

const lastLevel = 6

// close completes and syncs the present file.
func (w *tableWriter) close() error {
	if w.now == nil {
		return nil
	}
	now := w.now
	w.now = nil
	if err := now.Close(); err != nil {
		return fmt.Errorf("complete a table: %w", err)
	}
	return nil
}
