"""Reads and writes files, local or on any of Beam's filesystems. A reader never sees half a file.

Imports nothing else of camboxes.
"""

from camboxes.transforms.storage.files import absolute as absolute
from camboxes.transforms.storage.files import delete as delete
from camboxes.transforms.storage.files import exists as exists
from camboxes.transforms.storage.files import is_local as is_local
from camboxes.transforms.storage.files import join as join
from camboxes.transforms.storage.files import matching as matching
from camboxes.transforms.storage.files import names as names
from camboxes.transforms.storage.files import open_binary as open_binary
from camboxes.transforms.storage.files import read_bytes as read_bytes
from camboxes.transforms.storage.files import read_json as read_json
from camboxes.transforms.storage.files import read_table as read_table
from camboxes.transforms.storage.files import replacing as replacing
from camboxes.transforms.storage.files import sweep as sweep
from camboxes.transforms.storage.files import write_bytes as write_bytes
from camboxes.transforms.storage.files import write_json as write_json
from camboxes.transforms.storage.files import write_table as write_table
