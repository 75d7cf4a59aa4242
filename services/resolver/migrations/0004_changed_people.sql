-- People whose number or name is no longer what messages may have been given: their queued messages are looked for, several times
-- (services/resolver/returning.py). Written by whatever changes a contact, in its transaction.
CREATE TABLE changed_people (
    tenant     text        COLLATE "C" NOT NULL,
    kind       text        COLLATE "C" NOT NULL,
    id         text        COLLATE "C" NOT NULL,
    changed_at timestamptz NOT NULL,
    looks      integer     NOT NULL,
    next_look  timestamptz NOT NULL,
    PRIMARY KEY (tenant, kind, id)
);
CREATE INDEX changed_people_next_look ON changed_people (next_look);

CREATE FUNCTION note_changed_person() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO changed_people VALUES (NEW.tenant, NEW.kind, NEW.id, clock_timestamp(), 0, clock_timestamp())
    ON CONFLICT (tenant, kind, id) DO UPDATE
    SET changed_at = excluded.changed_at, looks = 0, next_look = excluded.next_look;
    RETURN NULL;
END $$;

-- Nothing was given to messages where there was no number.
CREATE TRIGGER contact_changed AFTER UPDATE ON contacts FOR EACH ROW
WHEN (OLD.phone IS NOT NULL AND (OLD.phone, OLD.name) IS DISTINCT FROM (NEW.phone, NEW.name))
EXECUTE FUNCTION note_changed_person();
