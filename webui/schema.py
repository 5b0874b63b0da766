"""The tables of the chats, and their migrations."""

from __future__ import annotations

VERSION = 2

_FIRST = """
CREATE TABLE chats (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    title TEXT NOT NULL DEFAULT '',
    leaf_id TEXT,
    created REAL NOT NULL,
    updated REAL NOT NULL
);
CREATE INDEX chats_of_owner ON chats (owner, updated);
CREATE TABLE turns (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    chat_id TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    parent_id TEXT REFERENCES turns (id) ON DELETE CASCADE,
    question TEXT NOT NULL,
    picture_id TEXT NOT NULL,
    answer TEXT NOT NULL DEFAULT '',
    answer_ids TEXT NOT NULL DEFAULT '[]',
    qformer_text TEXT NOT NULL DEFAULT '',
    tokenizer TEXT NOT NULL DEFAULT '',
    finish TEXT,
    error TEXT NOT NULL DEFAULT '',
    error_code TEXT NOT NULL DEFAULT '',
    error_values TEXT NOT NULL DEFAULT '{}',
    statistics TEXT NOT NULL DEFAULT '{}',
    parameters TEXT NOT NULL DEFAULT '{}',
    created REAL NOT NULL
);
CREATE INDEX turns_of_chat ON turns (chat_id, parent_id);
CREATE INDEX turns_of_parent ON turns (parent_id);
CREATE INDEX turns_with_picture ON turns (picture_id);
CREATE TABLE pictures (
    id TEXT PRIMARY KEY,
    mime TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    created REAL NOT NULL
);
CREATE TABLE picture_owners (
    picture_id TEXT NOT NULL REFERENCES pictures (id) ON DELETE CASCADE,
    owner TEXT NOT NULL,
    name TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL,
    PRIMARY KEY (picture_id, owner)
);
"""

# server: which server writes the answer. size: bytes, of a question with its answer, or a file.
_SECOND = """
ALTER TABLE turns ADD COLUMN server TEXT NOT NULL DEFAULT '';
ALTER TABLE turns ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE picture_owners ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
UPDATE turns SET size = ifnull(length(CAST(question AS BLOB)), 0) + ifnull(length(CAST(answer AS BLOB)), 0)
    + ifnull(length(CAST(answer_ids AS BLOB)), 0) + ifnull(length(CAST(qformer_text AS BLOB)), 0);
CREATE INDEX turns_running ON turns (server) WHERE finish IS NULL;
CREATE INDEX turns_answered ON turns (chat_id) WHERE finish IS NOT NULL AND answer != '';
CREATE INDEX turns_sizes ON turns (chat_id, size);
CREATE INDEX pictures_of_owner ON picture_owners (owner, size, created);
CREATE INDEX chats_empty ON chats (owner, created) WHERE leaf_id IS NULL;
DROP INDEX chats_of_owner;
CREATE INDEX chats_of_owner ON chats (owner, updated DESC, created DESC);
CREATE TABLE damaged (
    id INTEGER PRIMARY KEY,
    place TEXT NOT NULL,
    why TEXT NOT NULL,
    found REAL NOT NULL,
    content TEXT NOT NULL
);
"""

# MIGRATIONS[n] takes a file of version n to version n + 1.
MIGRATIONS: tuple[str, ...] = (_FIRST, _SECOND)
